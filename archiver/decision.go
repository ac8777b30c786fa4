package archiver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/wal"
)

// Decision is what an administrator said where no waiting helps.
type Decision string

const (
	KeepArchive Decision = "keep-archive" // the archive's copy counts; this one goes to orphans/
	Accept      Decision = "accept"       // this copy is stored as it is, though the check refused it
	Apart       Decision = "apart"        // a member's timeline is another one than the archive's of that number
)

// Resolution is a decision as the archive keeps it: an object of plain JSON below resolved/, put
// once and never deleted. A decision about a file names the digest of one copy, and every node honours
// it for that content alone. A decision about a timeline is honoured by the member it names.
type Resolution struct {
	Decision Decision     `json:"decision"`
	Name     string       `json:"name,omitempty"`
	Digest   seal.Digest  `json:"digest,omitzero"`
	Member   string       `json:"member,omitempty"`
	Timeline wal.Timeline `json:"timeline,omitempty"`
	Reason   string       `json:"reason"`
	By       string       `json:"by"`  // the user who asked
	Via      string       `json:"via"` // the member whose sidecar was asked
	At       time.Time    `json:"at"`
	Found    string       `json:"found,omitempty"` // what was wrong, as it was shown to the user
}

// ResolutionKey is where a decision is kept. The key alone says all that a sidecar needs to honour it.
func (a *Archive) ResolutionKey(r Resolution) string {
	base := r.Name + "-" + r.Digest.String() + "-" + string(r.Decision)
	if r.Decision == Apart {
		base = r.Member + "-" + r.Timeline.String()
	}
	return a.root + "/resolved/" + base + ".json"
}

// parseResolutionKey reads a key's last part, as far as it goes: reason, user and time are in the object.
func (a *Archive) parseResolutionKey(key string) (Resolution, bool) {
	base, ok := strings.CutSuffix(path.Base(key), ".json")
	if !ok {
		return Resolution{}, false
	}
	for _, d := range []Decision{KeepArchive, Accept} {
		rest, ok := strings.CutSuffix(base, "-"+string(d))
		if !ok {
			continue
		}
		name, hex, _ := strings.Cut(rest, "-")
		r := Resolution{Decision: d, Name: name}
		_, err := wal.ParseName(name, a.id.SegmentSize)
		return r, err == nil && r.Digest.UnmarshalText([]byte(hex)) == nil
	}
	i := strings.LastIndexByte(base, '-')
	if i < 1 {
		return Resolution{}, false
	}
	t, err := wal.ParseTimeline(base[i+1:])
	return Resolution{Decision: Apart, Member: base[:i], Timeline: t}, err == nil
}

// Resolutions lists all decisions, with what their keys say.
func (a *Archive) Resolutions(ctx context.Context) ([]Resolution, error) {
	var out []Resolution
	for info, err := range a.store.List(ctx, a.root+"/resolved/", "") {
		if err != nil {
			return nil, fmt.Errorf("read decisions: %w", err)
		}
		if r, ok := a.parseResolutionKey(info.Key); ok {
			out = append(out, r)
		}
	}
	return out, nil
}

// Resolution reads the whole of a decision that a listing found.
func (a *Archive) Resolution(ctx context.Context, r Resolution) (Resolution, error) {
	key := a.ResolutionKey(r)
	b, err := a.read(ctx, key)
	if err != nil {
		return r, fmt.Errorf("read decision: %w", err)
	}
	var got Resolution
	if err := json.Unmarshal(b, &got); err != nil {
		return r, fmt.Errorf("read decision %s: %w", key, err)
	}
	if a.ResolutionKey(got) != key {
		return r, fmt.Errorf("read decision %s: it is about something else", key)
	}
	return got, nil
}

// record puts a decision. One that is already there stays, and counts.
func (a *Archive) record(ctx context.Context, r Resolution) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(r); err != nil {
		return err
	}
	if err := a.store.Put(ctx, a.ResolutionKey(r), Bytes(b.Bytes())); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("record the decision: %w", err)
	}
	return nil
}

// Resolved is what was decided about one copy of a file.
type Resolved struct {
	KeepArchive bool
	Accept      bool
}

// rereadAfter is how old the list of decisions may be before a push is refused for a reason that a
// decision could change: another node's administrator may have spoken.
const rereadAfter = time.Minute

// decisions is what this node knows of resolved/.
type decisions struct {
	mu    sync.Mutex
	files map[copyOf]Resolved
	apart map[incarnation]bool
	read  time.Time
}

type copyOf struct {
	name   string
	digest seal.Digest
}

type incarnation struct {
	member   string
	timeline wal.Timeline
}

// set takes a new listing, and says whether anything is new.
func (d *decisions) set(list []Resolution, now time.Time) (changed bool) {
	files, apart := map[copyOf]Resolved{}, map[incarnation]bool{}
	for _, r := range list {
		k := copyOf{r.Name, r.Digest}
		got := files[k]
		switch r.Decision {
		case KeepArchive:
			got.KeepArchive = true
		case Accept:
			got.Accept = true
		case Apart:
			apart[incarnation{r.Member, r.Timeline}] = true
			continue
		}
		files[k] = got
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	changed = len(apart) != len(d.apart)
	for k, r := range files {
		changed = changed || d.files[k] != r
	}
	d.files, d.apart, d.read = files, apart, now
	return changed
}

func (d *decisions) of(k copyOf) Resolved {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.files[k]
}

func (d *decisions) isApart(i incarnation) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.apart[i]
}

func (d *decisions) due(now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.read.IsZero() || now.Sub(d.read) >= rereadAfter
}

// ReadDecisions lists what administrators decided: one LIST. It is made at the start, in each new term, after a
// resolve, and before a push is refused for a reason that a decision could change.
func (a *Archiver) ReadDecisions(ctx context.Context) error {
	list, err := a.resolutions(ctx)
	if err != nil {
		a.note(err)
		return err
	}
	if !a.decisions.set(list, a.o.Now()) {
		return nil
	}
	a.mu.Lock()
	clear(a.failed) // what our check refused may be accepted now
	a.mu.Unlock()
	a.bell.ring()
	return nil
}

// decided says what administrators decided about this node's copy of n with that digest.
func (a *Archiver) decided(n wal.Name, d seal.Digest) Resolved {
	r := a.decisions.of(copyOf{n.String(), d})
	if a.isApart(n.Segment.Timeline) {
		r.KeepArchive = true
	}
	return r
}

// isApart says whether it was decided that our timeline t is not the archive's. While we lead the cluster on
// t the decision rests: then ours is the line, whatever it was when somebody spoke.
func (a *Archiver) isApart(t wal.Timeline) bool {
	if !a.decisions.isApart(incarnation{a.o.Member, t}) {
		return false
	}
	c := a.scope.Last()
	c.Line = a.line(c)
	return !c.leadsOn(t)
}

// writesApart says whether our server is a primary on such a timeline: what it writes there is nobody else's. A clone of
// the leader, which this member is to become, has the leader's WAL of that number.
func (a *Archiver) writesApart(t wal.Timeline) bool {
	srv := a.server()
	return srv.State == ServerPrimary && srv.Timeline == t && a.isApart(t)
}

// shippable says whether a copy may be stored under its name (promise P3).
func (a *Archiver) shippable(n wal.Name, c *content) bool {
	return c.good || a.decided(n, c.digest).Accept
}

// setAsideFor says whether the object at key in orphans/ is there by a decision: nobody adopts it then.
func (a *Archiver) setAsideFor(key string, n wal.Name) bool {
	_, hex, _ := strings.Cut(path.Base(key), "-")
	var d seal.Digest
	if d.UnmarshalText([]byte(hex)) == nil && a.decisions.of(copyOf{n.String(), d}).KeepArchive {
		return true
	}
	return a.decisions.isApart(incarnation{path.Base(path.Dir(key)), n.Segment.Timeline})
}

// calm takes back the alarms about a file that needs nobody any more, and says so: who reads the log has been called.
func (a *Archiver) calm(n wal.Name) {
	a.mu.Lock()
	delete(a.waits, n)
	over := a.endAlarms(func(al Alarm) bool { return al.Name == n.String() })
	a.mu.Unlock()
	a.tellOver(over)
}

// endAlarms drops the alarms that are over. The caller holds mu, and tells of them when it does not any more.
func (a *Archiver) endAlarms(isOver func(Alarm) bool) (over []Alarm) {
	for k, al := range a.alarms {
		if isOver(al) {
			over = append(over, al)
			delete(a.alarms, k)
		}
	}
	slices.SortFunc(over, func(x, y Alarm) int { return strings.Compare(x.Name+x.Row, y.Name+y.Row) })
	return over
}

func (a *Archiver) tellOver(alarms []Alarm) {
	for _, al := range alarms {
		a.log.Info("this needs nobody any more", "file", al.Name, "row", al.Row)
	}
}
