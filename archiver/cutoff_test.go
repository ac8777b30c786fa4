package archiver_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
)

// TestParseCutoff: every way to say a cut-off, and what is refused rather than taken for something else.
func TestParseCutoff(t *testing.T) {
	noon := time.Date(2026, 11, 8, 12, 0, 0, 0, time.UTC)
	for s, want := range map[string]string{
		"000000020000000000000008":                  "000000020000000000000008",
		" 000000020000000000000008.00000028.backup": "000000020000000000000008.00000028.backup",
		"0/912345":                         "0/912345",
		"16/b374d848":                      "16/B374D848",
		"nightly":                          `the backup "nightly"`,
		"pg_basebackup base backup":        `the backup "pg_basebackup base backup"`,
		"2026-11-08T12:00:00Z":             noon.Format("2006-01-02 15:04:05Z"),
		"2026-11-08 14:00:00+02":           noon.Format("2006-01-02 15:04:05Z"),
		"2026-11-08 14:00:00+02:00":        noon.Format("2006-01-02 15:04:05Z"),
		"2026-11-08 12:00:00 UTC":          noon.Format("2006-01-02 15:04:05Z"),
		"2026-11-08 12:00:00.25+00":        noon.Format("2006-01-02 15:04:05Z"),
		"2026-11-08 14:00:00":              "error: no time zone",
		"2026-11-08 14:00":                 "error: no time zone",
		"2026-11-08":                       `the backup "2026-11-08"`,
		"":                                 "error: empty",
		"00000002.history":                 "error: neither a segment nor a backup",
		"000000020000000000000008.partial": "error: neither a segment nor a backup",
		"00000002000000000000000G":         `the backup "00000002000000000000000G"`,
		"00000002000000000000008":          "error: 24 digits",
		"000000020000000000001000":         "error: last field",
		"2026-11-08 12:00:00 IST":          "error: several ones",
	} {
		c, err := archiver.ParseCutoff(s, segSize)
		got := c.String()
		if err != nil {
			got = "error: " + err.Error()
		}
		text, failing := strings.CutPrefix(want, "error: ")
		if failing != (err != nil) || failing && !strings.Contains(got, text) || !failing && got != want {
			t.Errorf("%q: got %s, want %s", s, got, want)
		}
	}
}

// TestParseBackup: the files of real servers, and zones whose names may be any.
func TestParseBackup(t *testing.T) {
	stored := time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)
	files, err := filepath.Glob("wal/testdata/vectors/*/primary/*.backup")
	if err != nil || len(files) < 5 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		r, err := os.Open(f)
		if err != nil {
			t.Fatal(err)
		}
		n, err := wal.ParseName(filepath.Base(f), segSize)
		if err != nil {
			t.Fatal(err)
		}
		b, err := archiver.ParseBackup(n, r, stored)
		r.Close()
		if err != nil || b.Label != "pg_basebackup base backup" || b.Stop <= b.Start || b.Ended.Day() != 21 || b.Ended.Equal(stored) || b.Began.IsZero() {
			t.Errorf("%s: got %+v, %v", f, b, err)
		}
	}
	n := wal.Name{Kind: wal.KindBackup, Segment: seg(1, 9), Offset: 0x28}
	for zone, want := range map[string]time.Time{
		"UTC": time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC), "GMT": time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC),
		"+03": time.Date(2026, 11, 21, 6, 0, 0, 0, time.UTC), "-0330": time.Date(2026, 11, 21, 12, 30, 0, 0, time.UTC), "XST": stored, "": stored,
	} {
		b, err := archiver.ParseBackup(n, strings.NewReader("START WAL LOCATION: 0/900028 (file x)\nSTOP WAL LOCATION: 0/900100 (file x)\nSTOP TIME: 2026-11-21 09:00:00 "+zone+"\n"), stored)
		if err != nil || !b.Ended.Equal(want) {
			t.Errorf("zone %q: ended at %v, want %v; %v", zone, b.Ended, want, err)
		}
	}
	for _, text := range []string{"", "STOP WAL LOCATION: 0/900100", "START WAL LOCATION: 0/A00028 (file x)\nSTOP WAL LOCATION: 0/A00100 (file x)\n",
		"START WAL LOCATION: zero\n", "STOP WAL LOCATION: 0/100 (file x)\n"} {
		b, err := archiver.ParseBackup(n, strings.NewReader(text), stored)
		if text == "STOP WAL LOCATION: 0/900100" { // all that is needed: the name says where it began
			if err != nil || b.Stop != 0x900100 {
				t.Errorf("%q: got %+v, %v", text, b, err)
			}
		} else if err == nil {
			t.Errorf("%q: got %+v, want an error", text, b)
		}
	}
}

// TestCutoffByTime: the search by commit time finds what looking at every segment would, also where segments have no commit, and asks for few.
func TestCutoffByTime(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 40 {
		p := prepare(t, seg(1, 1))
		share := rng.IntN(4)
		const n = 60
		var last [n + 1]time.Time
		now := day(1)
		for i := uint64(1); i <= n; i++ {
			h := seal.Header{Name: seg(1, i).String()}
			if rng.IntN(4) >= share {
				h.FirstCommit = now
				now = now.Add(time.Duration(rng.IntN(100)) * time.Minute)
				h.LastCommit, last[i] = now, now
				now = now.Add(time.Minute)
			}
			p.set(p.a.Key(segName(1, i)), p.object(h, []byte("x")))
		}
		asked := 0
		a, err := archiver.OpenArchive(t.Context(), mem.NewFaults(p.store, func(c mem.Call) mem.Fault {
			if c.Op == mem.OpGet && strings.Contains(c.Key, "/wal/") {
				asked++
			}
			return mem.Fault{}
		}), "main", systemID)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			at := day(1).Add(time.Duration(rng.Int64N(int64(now.Sub(day(1))) + int64(2*time.Hour))))
			first := uint64(n) // the last is kept in any case
			for i := n; i >= 1; i-- {
				if !last[i].IsZero() && !last[i].Before(at) {
					first = uint64(i)
				}
			}
			asked = 0
			pl, err := a.PlanExpire(t.Context(), archiver.ExpireOptions{Before: archiver.Cutoff{Time: at}, WithoutBackups: true})
			if err != nil {
				t.Fatal(err)
			}
			// Segments without a commit right before that one may stay.
			lowest := first
			for lowest > 1 && last[lowest-1].IsZero() {
				lowest--
			}
			from, err := wal.ParseLSN(pl.From)
			if err != nil || from > seg(1, first).Start() || from < seg(1, lowest).Start() {
				t.Errorf("round %d, %v: from %s, want %d to %d", round, at, pl.From, lowest, first)
			}
			if share == 0 && asked > 8 {
				t.Errorf("round %d: %d requests for one of %d segments", round, asked, n)
			}
		}
	}
}
