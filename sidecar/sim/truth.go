package sim

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/wal"
)

// truth is what the archive really holds, and who wrote it: what no sidecar knows for certain.
type truth struct {
	c       *cluster
	objects map[string]object
	floors  []archiver.Floor
	opened  map[wal.Timeline]*stream   // whose first segment of a timeline the archive took
	first   map[wal.Timeline]opening   // and which one that was; when all of the timeline is gone, the next one that came
	writers map[wal.Timeline][]*stream // whose the timeline in the archive may be: of two that share their beginning, both until they part
}

// object is one object of the archive, opened when it arrived.
type object struct {
	plain   []byte // without the zeros at its end
	digest  seal.Digest
	good    bool // a segment that is what its name says
	spoiled bool // by a fault, in the archive itself
	astray  bool // a segment that the leader's line did not have when it came
	from    string
}

// opening is the segment that opened a timeline in the archive.
type opening struct {
	name wal.Name
	at   time.Time
}

const root = "main/7710524633316114262"

func newTruth(c *cluster) *truth {
	return &truth{c: c, objects: map[string]object{}, opened: map[wal.Timeline]*stream{}, first: map[wal.Timeline]opening{}, writers: map[wal.Timeline][]*stream{}}
}

// key is where a file lives.
func key(n wal.Name) string {
	if n.Kind == wal.KindHistory {
		return root + "/history/" + n.String()
	}
	return root + "/wal/" + n.Segment.Timeline.String() + "/" + n.String()
}

// put is the store's side of a put, with P2 and P3.
func (t *truth) put(n *node, key string, data []byte) error {
	_, known := t.objects[key]
	err := t.c.store.Put(context.Background(), key, archiver.Bytes(data))
	if errors.Is(err, fs.ErrExist) || err != nil {
		return err
	}
	if strings.Contains(key, "/probe/") {
		return nil
	}
	if known {
		t.c.check.fail("P2", "%s was written again", key)
	}
	if strings.HasSuffix(key, "/archive.json") {
		a, err := archiver.OpenArchive(context.Background(), t.c.store, "main", systemID)
		must(err)
		t.floors = a.Floors()
		t.objects[key] = object{from: n.name}
		t.c.say(n.name, "begins the archive at %v", t.floors[0].LSN)
		return nil
	}
	o := t.open(data)
	o.from = n.name
	t.objects[key] = o
	t.c.say(n.name, "stored %s", strings.TrimPrefix(key, root+"/"))
	if strings.Contains(key, "/wal/") && !strings.Contains(key, ".") {
		t.arrived(n, key, o)
		t.c.check.works(n)
	}
	return nil
}

// open reads an object, an encrypted one as only people with the identity can.
func (t *truth) open(data []byte) object {
	h, r, err := seal.Open(bytes.NewReader(data), identity())
	if err != nil {
		return object{}
	}
	defer r.Close()
	plain, err := t.c.scratch.read(r)
	if err != nil {
		return object{}
	}
	o := object{digest: h.Digest, plain: slices.Clone(trim(plain))}
	if g, err := wal.ParseName(h.Name, segmentSize); err == nil && g.Kind == wal.KindSegment {
		check := wal.NewChecker(g.Segment, systemID)
		check.Write(plain)
		o.good = check.Report().State == wal.Complete
	}
	return o
}

// arrived holds a segment to P3.
func (t *truth) arrived(n *node, key string, o object) {
	name, err := wal.ParseName(path.Base(key), segmentSize)
	if t.c.check.accepted[o.digest] {
		return
	}
	if err != nil || !o.good {
		t.c.check.fail("P3", "%s put %s, which is not good", n.name, key)
	}
	var wrote []*stream
	for _, own := range t.c.streams {
		if own.tli == name.Segment.Timeline && name.Segment.End() <= own.w.Pos() && bytes.Equal(o.plain, own.image(name.Segment)) {
			wrote = append(wrote, own)
		}
	}
	if wrote == nil {
		t.c.check.fail("P3", "%s put %s, which nobody wrote", n.name, key)
		return
	}
	if l := t.c.srv[t.c.leaderKey]; l != nil && l.stream != nil && !slices.Contains(wrote, l.stream.owns(name.Segment)) {
		o.astray = true
		t.objects[key] = o
	}
	tli := name.Segment.Timeline
	if _, open := t.first[tli]; !open {
		t.first[tli] = opening{name, t.c.now}
	}
	if t.opened[tli] == nil {
		t.opened[tli] = wrote[0]
		t.writers[tli] = wrote
		t.c.say("", "timeline %d in the archive is the one of %s", tli, wrote[0].owner)
		return
	}
	// Another server that took the same number later may add what has a name that is free; that makes the timeline no less the first one's.
	if left := slices.DeleteFunc(slices.Clone(t.writers[tli]), func(s *stream) bool { return !slices.Contains(wrote, s) }); len(left) > 0 {
		t.writers[tli] = left
	}
}

// emptied notes which timelines the archive has nothing of any more: the leader may begin them once more, without the baton.
func (t *truth) emptied() {
	for tli := range t.first {
		prefix := path.Dir(key(wal.SegmentName(wal.Segment{Timeline: tli, Size: segmentSize}))) + "/"
		left := false
		for key := range t.objects {
			left = left || strings.HasPrefix(key, prefix) && !strings.Contains(key, ".")
		}
		if !left {
			delete(t.first, tli)
		}
	}
}

// twin notes that a second server goes on with a timeline: it may have written all that the archive has, as long as the first has
// put nothing behind the place where they part.
func (t *truth) twin(old, twin *stream) {
	if !slices.Contains(t.writers[old.tli], old) {
		return
	}
	for key, o := range t.objects {
		n, err := wal.ParseName(path.Base(key), segmentSize)
		if err == nil && strings.Contains(key, "/wal/") && n.Kind == wal.KindSegment && n.Segment.Timeline == old.tli && o.good && !bytes.Equal(o.plain, twin.image(n.Segment)) {
			return
		}
	}
	t.writers[old.tli] = append(slices.Clone(t.writers[old.tli]), twin)
}

// object gives what the archive holds under a name.
func (t *truth) object(n wal.Name) (object, bool) {
	o, ok := t.objects[key(n)]
	return o, ok
}

func (t *truth) history(tl wal.Timeline) bool {
	_, ok := t.object(wal.HistoryName(tl))
	return ok
}

// holds says whether the archive has the segment as this stream's line has it.
func (t *truth) holds(s *stream, g wal.Segment) bool {
	own := s.owns(g)
	o, ok := t.object(wal.SegmentName(g))
	return ok && own != nil && o.good && bytes.Equal(o.plain, own.image(g))
}

func (t *truth) belowFloor(g wal.Segment) bool {
	for _, f := range t.floors {
		if f.Covers(g) {
			return true
		}
	}
	return false
}
