package archiver_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
)

// A clone and its origin have one system identifier, and each goes on to a timeline 2 of its own. What restore_from has of its
// timeline 2, and of all that grew from it, is never taken for ours; what both have in common is.
func TestTwin(t *testing.T) {
	one, theirs, further := forked() // the origin: timelines 1, 2, 3
	early := waltest.New(systemID, segSize)
	early.Commit(time.Unix(1_700_000_000, 0))
	early.Fill(2)
	ours := early.Fork(2) // left timeline 1 before the origin's did
	ours.Fill(2)
	same := one.Fork(2) // began where the origin's did, and has another content
	same.Record(77)
	same.Fill(2)

	origin := prepare(t, seg(1, 1))
	for _, w := range []*waltest.Writer{one, theirs, further} {
		origin.fill(w)
	}
	own := func(w *waltest.Writer) *prepared { // begins with its own timeline
		p := prepare(t, w.Full()[0])
		p.fill(w)
		return p
	}
	first, next := theirs.Full()[0], theirs.Full()[len(theirs.Full())-1]
	for name, tc := range map[string]struct {
		own   *prepared // nil: it has not begun
		local *waltest.Writer
		ask   wal.Name
		want  int
		bytes []byte
	}{
		"a segment of the twin":                         {own(ours), nil, wal.SegmentName(next), 1, nil},
		"a segment of the twin that began where we did": {own(same), nil, wal.SegmentName(next), 1, nil},
		"a timeline that grew from the twin":            {own(ours), nil, wal.HistoryName(3), 1, nil},
		"the twin's history":                            {own(ours), nil, wal.HistoryName(2), 0, ours.History().Bytes()},
		"only our pg_wal knows our timeline yet":        {nil, ours, wal.SegmentName(next), 1, nil},
		"its history, too":                              {nil, ours, wal.HistoryName(3), 1, nil},
		"the timeline that both have":                   {own(ours), nil, segName(1, 3), 0, one.Segment(seg(1, 3))},
		"the same timeline 2":                           {own(theirs), nil, wal.HistoryName(3), 0, further.History().Bytes()},
		"nothing of our own":                            {nil, nil, wal.SegmentName(first), 0, theirs.Segment(first)},
	} {
		t.Run(name, func(t *testing.T) {
			o := archiver.RestoreOptions{DataDir: dataDir(t, systemID, recovery), Others: []archiver.Source{origin.source()}, Kept: filepath.Join(t.TempDir(), "kept")}
			if tc.own == nil {
				tc.own = prepare(t, seg(1, 1))
				tc.own.delete("main/7710542482846769188/archive.json")
			}
			o.Own = tc.own.source()
			if tc.local != nil {
				writeFile(t, filepath.Join(o.DataDir, "pg_wal", "00000002.history"), tc.local.History().Bytes())
			}
			out, b := fetch(t, o, tc.ask.String(), false)
			if out.Code != tc.want || tc.want == 0 && !bytes.Equal(b, tc.bytes) {
				t.Errorf("exit %d, %d bytes, want %d with %d bytes: %s", out.Code, len(b), tc.want, len(tc.bytes), out.Why)
			}
		})
	}

	t.Run("its histories are not kept", func(t *testing.T) {
		o := archiver.RestoreOptions{Own: own(ours).source(), Others: []archiver.Source{origin.source()}, DataDir: dataDir(t, systemID, standby), Kept: t.TempDir()}
		kept := func(name string) string {
			b, _ := os.ReadFile(filepath.Join(o.Kept, "7710542482846769188", name))
			return string(b)
		}
		// The origin's was kept when nobody knew of ours.
		before := o
		before.Own = archiver.Source{Store: o.Own.Store, Scope: "not-begun"}
		for _, o := range []archiver.RestoreOptions{before, o} {
			r, err := archiver.NewRestorer(o)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.KeepHistories(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if got, want := kept("00000002.history"), string(ours.History().Bytes()); got != want {
			t.Errorf("kept of timeline 2: got %q, want our own %q", got, want)
		}
	})
}
