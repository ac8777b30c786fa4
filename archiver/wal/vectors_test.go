package wal_test

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/walbaton/walbaton/archiver/wal"
)

// The vectors are WAL of PostgreSQL 13.20, 15.20 and 17.9, in segments of 1 MB, with what each
// version's own pg_waldump and pg_controldata print: one primary, a standby that was promoted
// while the primary was down, a follower of it with archive_mode=always. Afterwards the old primary
// went on alone on timeline 1.
const vectors = "testdata/vectors"

func unzstd(t testing.TB, path ...string) []byte {
	t.Helper()
	f, err := os.Open(filepath.Join(path...) + ".zst")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := zstd.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var b bytes.Buffer
	if _, err := d.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func readControl(t testing.TB, dir string) wal.Control {
	t.Helper()
	c, err := wal.ReadControl(bytes.NewReader(unzstd(t, dir, "pg_control")))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func segment(t testing.TB, name string, size wal.SegmentSize) wal.Segment {
	t.Helper()
	n, err := wal.ParseName(name, size)
	if err != nil {
		t.Fatal(err)
	}
	return n.Segment
}

// check checks b in one piece.
func check(t testing.TB, b []byte, s wal.Segment, systemID uint64) wal.Report {
	t.Helper()
	r, err := wal.Check(bytes.NewReader(b), s, systemID)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// vector is a row of the table: what the check must say of one file.
type vector struct {
	file     string
	state    wal.State
	end      string // LSN; "" for the segment's end
	sw       bool
	timeline [2]wal.Timeline // of the first and the last page
}

func vectorsOf(version string) []vector {
	one, two, fork := [2]wal.Timeline{1, 1}, [2]wal.Timeline{2, 2}, [2]wal.Timeline{1, 2}
	switch version {
	case "pg13":
		return []vector{
			{"primary/000000010000000000000008", wal.Complete, "", true, one},
			{"primary/000000010000000000000010", wal.Complete, "", false, one},
			{"primary/000000010000000000000032", wal.Complete, "", true, one},
			{"primary/000000010000000000000033", wal.Complete, "", true, one},
			{"primary/000000010000000000000035", wal.Complete, "", false, one},
			{"primary/00000001000000000000006C", wal.Complete, "", false, one},
			{"primary/00000001000000000000006D", wal.Complete, "", false, one},
			{"promoted/00000001000000000000006D.partial", wal.Cut, "fork", false, one},
			{"follower/00000001000000000000006D", wal.Cut, "fork", false, one},
			{"promoted/00000002000000000000006D", wal.Complete, "", false, fork},
			{"promoted/00000002000000000000006E", wal.Complete, "", true, two},
			{"promoted/00000002000000000000006F", wal.Complete, "", true, two},
		}
	case "pg15":
		return []vector{
			{"primary/000000010000000000000008", wal.Complete, "", true, one},
			{"primary/000000010000000000000010", wal.Complete, "", false, one},
			{"primary/000000010000000000000025", wal.Complete, "", true, one},
			{"primary/000000010000000000000026", wal.Complete, "", true, one},
			{"primary/000000010000000000000028", wal.Complete, "", false, one},
			{"primary/00000001000000000000005F", wal.Complete, "", false, one},
			{"primary/000000010000000000000060", wal.Complete, "", false, one},
			{"promoted/000000010000000000000060.partial", wal.Cut, "fork", false, one},
			{"follower/000000010000000000000060", wal.Cut, "fork", false, one},
			{"promoted/000000020000000000000060", wal.Complete, "", false, fork},
			{"promoted/000000020000000000000061", wal.Complete, "", true, two},
			{"promoted/000000020000000000000062", wal.Complete, "", true, two},
		}
	}
	return []vector{
		{"primary/000000010000000000000007", wal.Complete, "", true, one},
		{"primary/000000010000000000000010", wal.Complete, "", false, one},
		{"primary/000000010000000000000024", wal.Complete, "", true, one},
		{"primary/000000010000000000000025", wal.Complete, "", true, one},
		{"primary/000000010000000000000027", wal.Complete, "", false, one},
		{"primary/00000001000000000000005E", wal.Complete, "", false, one},
		{"primary/00000001000000000000005F", wal.Complete, "", false, one},
		{"promoted/00000001000000000000005F.partial", wal.Cut, "fork", false, one},
		{"follower/00000001000000000000005F", wal.Cut, "fork", false, one},
		{"promoted/00000002000000000000005F", wal.Complete, "", false, fork},
		{"promoted/000000020000000000000060", wal.Complete, "", true, two},
		{"promoted/000000020000000000000061", wal.Complete, "", true, two},
	}
}

func TestVectors(t *testing.T) {
	for _, version := range []string{"pg13", "pg15", "pg17"} {
		dir := filepath.Join(vectors, version)
		control := readControl(t, dir)
		raw, err := os.ReadFile(filepath.Join(dir, "promoted", "00000002.history"))
		if err != nil {
			t.Fatal(err)
		}
		history, err := wal.ParseHistory(2, bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		if got := history.Bytes(); !bytes.Equal(got, raw) {
			t.Errorf("%s: history written as %q, want %q", version, got, raw)
		}
		fork, _ := history.End(1)
		seen := map[string]bool{}
		for _, v := range vectorsOf(version) {
			seen[v.file] = true
			t.Run(version+"/"+v.file, func(t *testing.T) {
				checkVector(t, dir, v, control, history, fork)
			})
		}
		files, err := filepath.Glob(filepath.Join(dir, "*", "0*.zst"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			name, _ := filepath.Rel(dir, strings.TrimSuffix(f, ".zst"))
			if !strings.HasSuffix(name, ".waldump") && !seen[name] {
				t.Errorf("%s: %s has no row in the table", version, name)
			}
		}
	}
}

func checkVector(t *testing.T, dir string, v vector, control wal.Control, history wal.History, fork wal.LSN) {
	b := unzstd(t, dir, v.file)
	s := segment(t, filepath.Base(v.file), control.SegmentSize)
	r := check(t, b, s, control.SystemID)
	end := s.End()
	if v.end == "fork" {
		end = fork
	}
	if r.State != v.state || r.End != end || r.Switch != v.sw {
		t.Errorf("got %v up to %v, switch %v (%s), want %v up to %v, switch %v", r.State, r.End, r.Switch, r.Why, v.state, end, v.sw)
	}
	if got := [2]wal.Timeline{r.FirstTimeline, r.LastTimeline}; got != v.timeline {
		t.Errorf("got timelines %v, want %v", got, v.timeline)
	}
	if !history.Explains(s, r) {
		t.Error("the history does not explain the pages")
	}
	if r.Major != control.Major {
		t.Errorf("got version %d, want %d", r.Major, control.Major)
	}
	if r.State == wal.Complete && r.Why != "" || r.State != wal.Complete && r.Why == "" {
		t.Errorf("%v because %q", r.State, r.Why)
	}
	if _, err := os.Stat(filepath.Join(dir, v.file) + ".waldump.zst"); err == nil {
		compareDump(t, string(unzstd(t, dir, v.file+".waldump")), s, r)
	}
}

var (
	dumpRecord = regexp.MustCompile(`^rmgr: (\S+) +len \(rec/tot\): +\d+/ *(\d+), tx: +\d+, lsn: ([0-9A-F/]+), prev ([0-9A-F/]+), desc: (\S+)`)
	dumpCommit = regexp.MustCompile(`^rmgr: Transaction .* desc: COMMIT(?:_PREPARED)? (?:\d+: )?(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ [A-Z]+)`)
)

// compareDump compares a report with what pg_waldump prints for that segment alone, in UTC. It prints the
// records that start there and are whole there; of none it says so, in one line.
func compareDump(t testing.TB, dump string, s wal.Segment, r wal.Report) {
	t.Helper()
	var want wal.Report
	for line := range strings.Lines(dump) {
		m := dumpRecord.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		lsn, err := wal.ParseLSN(m[3])
		if err != nil {
			t.Fatal(err)
		}
		total, err := strconv.Atoi(m[2])
		if err != nil {
			t.Fatal(err)
		}
		if s.Size.At(s.Timeline, lsn+wal.LSN(total)-1) != s {
			t.Fatalf("%s", line)
		}
		if want.Records++; want.First == 0 {
			want.First = lsn
		}
		want.Last = lsn
		want.Switch = m[1] == "XLOG" && m[5] == "SWITCH"
		if m := dumpCommit.FindStringSubmatch(line); m != nil {
			at, err := time.Parse("2006-01-02 15:04:05.999999 MST", m[1])
			if err != nil {
				t.Fatal(err)
			}
			if want.FirstCommit.IsZero() || at.Before(want.FirstCommit) {
				want.FirstCommit = at
			}
			if at.After(want.LastCommit) {
				want.LastCommit = at
			}
		}
	}
	if r.Records == 0 {
		want.Switch = r.Switch // of a switch that began in the segment before it prints nothing
	}
	if r.Continues && r.Records > want.Records {
		// The one that runs on: pg_waldump leaves it out.
		r.Records--
		if r.Last <= want.Last || want.Records == 0 && r.Last != r.First {
			t.Errorf("a record that runs on starts at %v, not after %v", r.Last, want.Last)
		}
		r.Last = want.Last
		if want.Records == 0 {
			r.First = 0
		}
	}
	if r.Records != want.Records || r.First != want.First || r.Last != want.Last || r.Switch != want.Switch {
		t.Errorf("got %d records from %v to %v, switch %v; pg_waldump has %d from %v to %v, switch %v",
			r.Records, r.First, r.Last, r.Switch, want.Records, want.First, want.Last, want.Switch)
	}
	if !r.FirstCommit.Equal(want.FirstCommit) || !r.LastCommit.Equal(want.LastCommit) {
		t.Errorf("got commits from %v to %v, pg_waldump has %v to %v", r.FirstCommit, r.LastCommit, want.FirstCommit, want.LastCommit)
	}
}

func TestControlVectors(t *testing.T) {
	for version, major := range map[string]int{"pg13": 13, "pg15": 15, "pg17": 17} {
		dir := filepath.Join(vectors, version)
		b, err := os.ReadFile(filepath.Join(dir, "pg_controldata.txt"))
		if err != nil {
			t.Fatal(err)
		}
		compareControl(t, string(b), readControl(t, dir), major)
	}
}

// compareControl compares c with what pg_controldata prints, in UTC.
func compareControl(t testing.TB, text string, c wal.Control, major int) {
	t.Helper()
	checksums := "0"
	if c.Checksums {
		checksums = "1"
	}
	for field, got := range map[string]string{
		"Database system identifier":         strconv.FormatUint(c.SystemID, 10),
		"Database cluster state":             c.State.String(),
		"pg_control last modified":           c.Updated.Format("Mon 02 Jan 2006 03:04:05 PM MST"),
		"Latest checkpoint location":         c.Checkpoint.String(),
		"Latest checkpoint's REDO location":  c.Redo.String(),
		"Latest checkpoint's REDO WAL file":  c.SegmentSize.At(c.RedoTimeline, c.Redo).String(),
		"Latest checkpoint's TimeLineID":     strconv.Itoa(int(c.RedoTimeline)),
		"Minimum recovery ending location":   c.MinRecovery.String(),
		"Min recovery ending loc's timeline": strconv.Itoa(int(c.MinRecoveryTimeline)),
		"Bytes per WAL segment":              strconv.Itoa(int(c.SegmentSize)),
		"Data page checksum version":         checksums,
	} {
		_, rest, ok := strings.Cut(text, field+":")
		want, _, _ := strings.Cut(rest, "\n")
		want = strings.TrimSpace(want)
		if field == "pg_control last modified" && got != want {
			got = c.Updated.Format("Mon Jan _2 15:04:05 2006") // in the locale C
		}
		if !ok || got != want {
			t.Errorf("%s: got %q, pg_controldata says %q", field, got, want)
		}
	}
	if c.Major != major {
		t.Errorf("got version %d, want %d", c.Major, major)
	}
}
