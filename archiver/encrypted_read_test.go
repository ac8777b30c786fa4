package archiver_test

import (
	"bytes"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
)

// TestReadEncrypted runs much of what reads an archive on one whose segments are encrypted, with the identity.
func TestReadEncrypted(t *testing.T) {
	t.Run("encrypted", func(t *testing.T) {
		for name, test := range map[string]func(*testing.T){
			"FetchRules": TestFetchRules, "FetchRequests": TestFetchRequests, "KeptHistories": TestKeptHistories, "StandbyAtTheFork": TestStandbyAtTheFork,
			"Prefetch": TestPrefetch, "Twin": TestTwin, "AuditGood": TestAuditGood, "AuditBroken": TestAuditBroken, "Timelines": TestTimelines,
		} {
			t.Run(name, test)
		}
	})
}

// mixed is an archive of four segments: the first is not encrypted, the next two are to the identity of p.keys, and the last is to a lost one.
func mixed(t *testing.T) (*prepared, *waltest.Writer) {
	t.Helper()
	w := waltest.New(systemID, segSize)
	w.Fill(4)
	p := prepare(t, w.Full()[0])
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	lost, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	p.keys = []seal.Identity{id}
	for i, to := range [][]seal.Recipient{nil, {id.Recipient()}, {lost.Recipient(), id.Recipient()}, {lost.Recipient()}} {
		if p.sealer, err = seal.New(seal.Zstd, to...); err != nil {
			t.Fatal(err)
		}
		p.put(wal.SegmentName(w.Full()[i]), w.Segment(w.Full()[i]))
	}
	p.open()
	return p, w
}

// TestRestoreMixed: with one identity all is restored that it opens and that is not encrypted; for the rest nobody can say, which never
// looks like "not there" in a recovery.
func TestRestoreMixed(t *testing.T) {
	p, w := mixed(t)
	for _, tt := range []struct {
		keys    bool
		segment int
		code    int
		why     string
	}{
		{true, 0, archiver.Restored, ""}, {true, 1, archiver.Restored, ""}, {true, 2, archiver.Restored, ""},
		{true, 3, archiver.CannotSay, "encrypted to others"},
		{false, 0, archiver.Restored, ""}, {false, 1, archiver.CannotSay, "no identity"}, {false, 3, archiver.CannotSay, "no identity"},
	} {
		src := p.source()
		if !tt.keys {
			src.Keys = nil
		}
		g := w.Full()[tt.segment]
		out, b := fetch(t, archiver.RestoreOptions{Own: src, DataDir: dataDir(t, systemID, recovery)}, g.String(), false)
		if out.Code != tt.code || !strings.Contains(out.Why, tt.why) || strings.Contains(out.Why, "\n") {
			t.Errorf("segment %d, identity %t: got %+v, want %d with %q", tt.segment, tt.keys, out, tt.code, tt.why)
		}
		if got := bytes.Equal(b, w.Segment(g)); got != (tt.code == archiver.Restored) || !got && b != nil {
			t.Errorf("segment %d, identity %t: %d bytes were written", tt.segment, tt.keys, len(b))
		}
	}
}

// TestRestoreLockedFromAnother: what no identity here opens is taken from the next archive, if it has the same content.
func TestRestoreLockedFromAnother(t *testing.T) {
	p, w := mixed(t)
	g := w.Full()[3]
	for name, tt := range map[string]struct {
		plain []byte
		code  int
	}{
		"the same content": {w.Segment(g), archiver.Restored},
		"another one":      {waltest.Flip(w.Segment(g), 300_000), archiver.CannotSay},
	} {
		other := prepare(t, w.Full()[0])
		other.put(wal.SegmentName(g), tt.plain)
		o := archiver.RestoreOptions{Own: p.source(), Others: []archiver.Source{other.source()}, DataDir: dataDir(t, systemID, recovery)}
		if out, b := fetch(t, o, g.String(), false); out.Code != tt.code || (b != nil) != (tt.code == archiver.Restored) {
			t.Errorf("%s: got %+v and %d bytes, want %d", name, out, len(b), tt.code)
		}
	}
}

// TestAuditMixed: verify counts what is encrypted. What no identity opens is no problem and is not checked, but for its header and for damage
// of its bytes.
func TestAuditMixed(t *testing.T) {
	for _, tt := range []struct {
		name      string
		deep      bool
		keys      bool
		spoil     int // segment whose object is cut, -1: none
		locked    int
		opened    int
		want      string // problems
		unchecked string
	}{
		{"shallow", false, false, -1, 0, 0, "", "contents"},
		{"shallow, a cut object", false, false, 1, 0, 0, "", "contents"},
		{"deep, no identity", true, false, -1, 3, 1, "", "the WAL in 3 encrypted objects: there is no identity here"},
		{"deep, one identity", true, true, -1, 1, 3, "", "the WAL in one encrypted object: no identity here opens it"},
		{"deep, no identity, a cut object", true, false, 1, 2, 1, "damaged 000000010000000000000002", "the WAL in 2 encrypted objects"},
		{"deep, the lost key's is cut", true, true, 3, 0, 3, "damaged 000000010000000000000004", ""},
	} {
		p, w := mixed(t)
		if !tt.keys {
			p.keys = nil
			p.open()
		}
		if tt.spoil >= 0 {
			key := p.a.Key(wal.SegmentName(w.Full()[tt.spoil]))
			object := p.get(key)
			p.set(key, object[:len(object)-1])
		}
		rep := audit(t, p, archiver.AuditOptions{Deep: tt.deep})
		if got := found(rep); got != tt.want || rep.Whole != (tt.want == "") {
			t.Errorf("%s: found %q, want %q", tt.name, got, tt.want)
		}
		if rep.Count.Encrypted != 3 || rep.Count.Locked != tt.locked {
			t.Errorf("%s: got %d encrypted and %d locked, want 3 and %d", tt.name, rep.Count.Encrypted, rep.Count.Locked, tt.locked)
		}
		if !strings.HasPrefix(rep.NotChecked, tt.unchecked) || tt.unchecked == "" && rep.NotChecked != "" {
			t.Errorf("%s: not checked: got %q, want %q", tt.name, rep.NotChecked, tt.unchecked)
		}
	}
}

// A chain of a deep audit reads the segment before it once more, which is counted once all the same. And list says what it saw of encryption.
func TestEncryptedCountedOnce(t *testing.T) {
	w := waltest.New(systemID, segSize)
	w.Fill(40)
	p := prepare(t, w.Full()[0])
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	encrypts, err := seal.New(seal.LZ4, id.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	clear := p.sealer
	for i, g := range w.Full() {
		p.sealer = encrypts
		if i == 0 {
			p.sealer = clear
		}
		p.put(wal.SegmentName(g), w.Segment(g))
	}
	for _, keys := range [][]seal.Identity{nil, {id}} {
		p.keys = keys
		p.open()
		if rep := audit(t, p, archiver.AuditOptions{Deep: true}); rep.Count.Encrypted != len(w.Full())-1 || !rep.Whole {
			t.Errorf("%d identities: got %d encrypted of %d, %v", len(keys), rep.Count.Encrypted, len(w.Full()), rep.Problems)
		}
	}
	spans, err := p.a.Timelines(t.Context())
	if err != nil || len(spans) != 1 || spans[0].Encryption != "mixed" {
		t.Errorf("list: got %+v, %v, want one mixed timeline", spans, err)
	}
}
