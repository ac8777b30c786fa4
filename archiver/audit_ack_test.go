package archiver_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
)

func acknowledge(p *prepared, first, last wal.Name) (archiver.Acknowledgment, error) {
	return p.a.Acknowledge(p.t.Context(), first, last, archiver.Acknowledgment{Reason: "disk 7\nburnt", By: "ann", Via: "n1", At: time.Unix(1_700_000_000, 0).UTC()})
}

// An acknowledged hole is named each time and counted apart; the rest of it stays open.
func TestAcknowledge(t *testing.T) {
	p := good(t)
	for no := uint64(10); no <= 11; no++ {
		p.remove(segName(3, no))
	}
	p.remove(wal.HistoryName(2))
	before := audit(t, p, archiver.AuditOptions{})
	if before.Open() != 2 || before.Acknowledged != 0 {
		t.Fatalf("before: %q, %d acknowledged", found(before), before.Acknowledged)
	}
	k, err := acknowledge(p, segName(3, 10), segName(3, 10))
	if err != nil || k.Reason != "disk 7 burnt" || !strings.Contains(k.Found, "2 segments are missing") {
		t.Fatalf("got %+v, %v", k, err)
	}
	rep := audit(t, p, archiver.AuditOptions{})
	if rep.ProblemCount != 3 || rep.Open() != 2 || rep.Count.Missing != 2 || rep.Count.Known != 1 || rep.Whole {
		t.Errorf("half of it: %q, %d open, %+v", found(rep), rep.Open(), rep.Count)
	}
	if rep.Frontier != before.Frontier {
		t.Errorf("frontier %s, want %s: what is missing stays missing", rep.Frontier, before.Frontier)
	}
	for _, x := range rep.Problems {
		if known := x.Name == "00000003000000000000000A"; known != (x.Acknowledged != nil) {
			t.Errorf("%s: acknowledged %+v", x.Name, x.Acknowledged)
		}
	}
	if _, err := acknowledge(p, segName(3, 11), segName(3, 11)); err != nil {
		t.Fatal(err)
	}
	if _, err := acknowledge(p, wal.HistoryName(2), wal.HistoryName(2)); err != nil {
		t.Fatal(err)
	}
	if rep = audit(t, p, archiver.AuditOptions{}); rep.ProblemCount != 3 || rep.Open() != 0 || rep.Whole {
		t.Errorf("all of it: %q, %d open, whole %v", found(rep), rep.Open(), rep.Whole)
	}
	// What was said first stays.
	again, err := p.a.Acknowledge(t.Context(), segName(3, 10), segName(3, 10), archiver.Acknowledgment{Reason: "other", By: "bob"})
	if err != nil || again.By != "ann" || again.Reason != "disk 7 burnt" {
		t.Errorf("again: %+v, %v", again, err)
	}
}

// What is no hole is refused, and the refusal says why. Nothing is written then.
func TestAcknowledgeNoHole(t *testing.T) {
	p := good(t)
	p.remove(segName(3, 10))
	for name, tc := range map[string]struct {
		first, last wal.Name
		why         string
	}{
		"it is there":           {segName(2, 6), segName(2, 6), "the archive has 000000020000000000000006"},
		"a part of it is there": {segName(3, 10), segName(3, 11), "the archive has 00000003000000000000000B"},
		"it may still come":     {segName(3, 13), segName(3, 13), "may still come"},
		"below the floor":       {segName(1, 0), segName(1, 0), "below a floor"},
		"before the timeline":   {segName(3, 3), segName(3, 4), "before timeline 3 began"},
		"no such timeline":      {segName(9, 3), segName(9, 3), "nothing of timeline 9"},
		"history that is there": {wal.HistoryName(2), wal.HistoryName(2), "the archive has 00000002.history"},
		"history of the future": {wal.HistoryName(7), wal.HistoryName(7), "recovery needs no history"},
	} {
		_, err := acknowledge(p, tc.first, tc.last)
		if !errors.Is(err, archiver.ErrNoHole) || !strings.Contains(err.Error(), tc.why) {
			t.Errorf("%s: got %v, want %q", name, err, tc.why)
		}
	}
	for name, tc := range map[string][2]wal.Name{
		"two timelines": {segName(2, 10), segName(3, 10)}, "backwards": {segName(3, 11), segName(3, 10)}, "a partial": {partialName(3, 10), partialName(3, 10)},
	} {
		if _, err := acknowledge(p, tc[0], tc[1]); err == nil || errors.Is(err, archiver.ErrNoHole) {
			t.Errorf("%s: got %v, want a refusal of the names", name, err)
		}
	}
	if _, err := p.a.Acknowledge(t.Context(), segName(3, 10), segName(3, 10), archiver.Acknowledgment{Reason: " \n"}); err == nil || !strings.Contains(err.Error(), "needs a reason") {
		t.Errorf("no reason: %v", err)
	}
	if got, err := p.a.Acknowledgments(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("recorded: %+v, %v", got, err)
	}
}

// An acknowledgment of something else, or that does not parse, acknowledges nothing.
func TestAcknowledgmentThatLies(t *testing.T) {
	p := good(t)
	p.remove(segName(3, 10))
	folder := strings.TrimSuffix(p.a.Key(wal.HistoryName(1)), "history/00000001.history") + "acknowledged/"
	p.set(folder+"00000003000000000000000A-00000003000000000000000A.json", []byte(`{"first":"000000030000000000000001","last":"00000003000000000000000F","reason":"x"}`))
	p.set(folder+"00000003000000000000000A-00000003000000000000000C.json", []byte(`{`))
	p.set(folder+"readme.json", []byte(`{}`))
	if rep := audit(t, p, archiver.AuditOptions{}); rep.Open() != 1 || rep.Acknowledged != 0 {
		t.Errorf("%q, %d acknowledged", found(rep), rep.Acknowledged)
	}
}

// A restore across an acknowledged hole stops as before: it is not "not there", which PostgreSQL would take for the end of the WAL.
func TestRestoreStopsAtAcknowledgedHole(t *testing.T) {
	p := good(t)
	p.remove(segName(3, 10))
	if _, err := acknowledge(p, segName(3, 10), segName(3, 10)); err != nil {
		t.Fatal(err)
	}
	out, b := fetch(t, archiver.RestoreOptions{Own: p.source(), DataDir: dataDir(t, systemID, recovery)}, segName(3, 10).String(), false)
	if out.Code != archiver.CannotSay || b != nil {
		t.Errorf("exit %d (%s) and %d bytes, want %d and none", out.Code, out.Why, len(b), archiver.CannotSay)
	}
}
