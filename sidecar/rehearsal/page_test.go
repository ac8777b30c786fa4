package rehearsal

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// update is asked for with UPDATE_GOLDEN=1: the pages are written into testdata instead of compared.
func update() bool { return os.Getenv("UPDATE_GOLDEN") != "" }

func at(s float64) *Seconds { v := Seconds(s); return &v }

// samples are results that a reviewer should see.
func samples() map[string]*Result {
	begun := time.Date(2026, 11, 28, 23, 15, 0, 0, time.UTC)
	passed := &Result{
		Verdict: Passed, Why: []string{}, Version: "v0.9.0", Cluster: "shop", SystemID: 7710597796492160055, Archive: "s3://wal/prod/shop/7710597796492160055",
		Began: begun, Ended: begun.Add(62 * time.Second), Wanted: 1, Rounds: []Round{sampleRound(begun)}, Left: []string{},
		Restore: &Restore{Target: "walbaton_drill_20261128_231500_abcdef", Backup: 6.2, Took: 4.8, Rows: 1496},
	}
	failed := &Result{
		Version: "v0.9.0", Cluster: "shop <test>", SystemID: 7710597796492160055, Archive: "file:///mnt/archive/shop/7710597796492160055", Began: begun, Ended: begun.Add(131 * time.Second),
		Command: `ssh "$WALBATON_DRILL_HOST" reboot -f`, Wanted: 3, Why: []string{}, Left: []string{}, Rounds: []Round{sampleRound(begun), killedRound(begun.Add(time.Minute))},
		Restore: &Restore{Target: "walbaton_drill_20261128_231500_abcdef", Backup: 6.2, Took: 4.8, Rows: 2920, Missing: 31},
	}
	failed.Rounds[1].No = 2
	failed.Rounds[1].judge()
	failed.judge()
	notRun := &Result{Verdict: NotRun, Why: []string{"Patroni is paused (maintenance mode), so it would not act: patronictl resume shop", "no sidecar answers beside n3"}, Version: "v0.9.0", Cluster: "shop",
		SystemID: 7710597796492160055, Archive: "file:///mnt/archive/shop/7710597796492160055", Began: begun, Ended: begun, Wanted: 1, Rounds: []Round{}, Left: []string{}}
	return map[string]*Result{"passed": passed, "failed": failed, "notrun": notRun}
}

// sampleRound is a switchover as it goes.
func sampleRound(asked time.Time) Round {
	rd := Round{
		No: 1, Verdict: Passed, Why: []string{}, AskedAt: asked, From: "n1", To: "n2", OldTimeline: 1, NewTimeline: 2, Promoted: 1.9,
		NoWritesFrom: .06, NoWritesTo: 2.14, Holder: "n2", FirstFile: "00000002000000000000000C", Shipped: 3.1, Back: 6.4,
		Rows:      Rows{Acknowledged: 1496, Doubtful: 1},
		Timelines: []Line{{1, "000000010000000000000007", "00000001000000000000000B", 5, []string{}}, {2, "00000002000000000000000C", "000000020000000000000010", 5, []string{}}},
		Notes:     []string{"1 row was sent and never acknowledged: PostgreSQL may have kept such a row or not, and kept 0"}, Twice: []string{}, Orphans: []string{},
	}
	rd.Trace = Trace{From: -10.2, To: 17.5, Members: []string{"n1", "n2", "n3"},
		Primaries: []Span{{"n1", -10.2, .3, 1, 0}, {"n2", 1.9, 17.5, 2, 0}}, Batons: []Span{{"n1", -10.2, .7, 0, 41}, {"n2", 1.4, 17.5, 0, 42}},
		Failures: []Failure{{.3, "terminating connection due to administrator command", 1}, {.36, "no member is the primary", 78}}}
	for i := range 5 {
		ended := -7.1 + 3*float64(i)
		if i == 3 {
			ended = .2
		}
		f := File{Name: fmt.Sprintf("0000000100000000000000%02X", 7+i), Timeline: 1, Ended: at(ended), Arrived: Seconds(ended + .4)}
		if i == 3 || i == 4 {
			f.Ended, f.Arrived = nil, Seconds(.6+.3*float64(i-3))
		}
		rd.Trace.Files = append(rd.Trace.Files, f)
	}
	rd.Trace.Files = append(rd.Trace.Files, File{"00000002.history", 2, nil, 2.1}, File{"00000001000000000000000C.partial", 1, nil, 2.4})
	for i := range 5 {
		rd.Trace.Files = append(rd.Trace.Files, File{fmt.Sprintf("0000000200000000000000%02X", 12+i), 2, at(2.2 + 3*float64(i)), Seconds(3.1 + 3*float64(i) - .1*float64(i))})
	}
	rd.Trace.Writes = sampleWrites(-10.2, 12.9, .06, 2.14)
	return rd
}

func sampleWrites(from, to, quiet, again float64) (all []Bucket) {
	for s := from; s < to; s += .25 {
		b := Bucket{At: Seconds(s), Acknowledged: 12 + int(s*4)%2}
		if s > quiet && s < again {
			b = Bucket{At: Seconds(s), Failed: 12}
		}
		all = append(all, b)
	}
	return all
}

// killedRound is a kill with rows lost and a hole.
func killedRound(asked time.Time) Round {
	rd := Round{
		No: 1, ByCommand: true, Why: []string{}, Notes: []string{}, AskedAt: asked, From: "n2", To: "n3", OldTimeline: 2, NewTimeline: 3, Promoted: 31.2, NoWritesFrom: -.01, NoWritesTo: 31.9, Holder: "n3",
		FirstFile: "000000030000000000000019", Shipped: 33, Rows: Rows{Acknowledged: 1424, Lost: 3, Doubtful: 1},
		Timelines: []Line{{2, "000000020000000000000011", "000000020000000000000018", 8, []string{"000000020000000000000016"}}, {3, "000000030000000000000019", "00000003000000000000001C", 4, []string{}}},
		Twice:     []string{}, Orphans: []string{"n2/000000020000000000000019-3f2a"},
	}
	rd.Trace = Trace{From: -10, To: 46, Members: []string{"n1", "n2", "n3"}, Primaries: []Span{{"n2", -10, .1, 2, 0}, {"n3", 31.2, 46, 3, 0}},
		Batons:   []Span{{"n2", -10, 14.5, 0, 42}, {"n1", 15.1, 31, 0, 43}, {"n3", 31.4, 46, 0, 44}},
		Failures: []Failure{{0, "connection lost", 1}, {.1, "no member is the primary", 590}}}
	for i := range 5 {
		rd.Trace.Files = append(rd.Trace.Files, File{fmt.Sprintf("0000000200000000000000%02X", 17+i), 2, at(-9 + 2*float64(i)), Seconds(-8.6 + 2*float64(i))})
	}
	for i := range 4 {
		rd.Trace.Files = append(rd.Trace.Files, File{fmt.Sprintf("0000000300000000000000%02X", 25+i), 3, at(32 + 3*float64(i)), Seconds(33 + 3*float64(i))})
	}
	rd.Trace.Writes = sampleWrites(-10, 42, 0, 31.9)
	return rd
}

// TestPages: the report is a pure function of the result, in every form.
func TestPages(t *testing.T) {
	for name, res := range samples() {
		page, err := res.HTML()
		if err != nil {
			t.Fatal(err)
		}
		all, err := res.JSON()
		if err != nil {
			t.Fatal(err)
		}
		forms := map[string]string{".html": page, ".md": res.Markdown(), ".json": string(all), ".txt": res.Text()}
		for i, rd := range res.Rounds {
			forms[fmt.Sprintf("%d.svg", i+1)] = Draw(rd, wide, "round")
		}
		for ext, got := range forms {
			file := filepath.Join("testdata", name+ext)
			if update() {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				continue
			}
			want, err := os.ReadFile(file)
			if err != nil || got != string(want) {
				t.Errorf("%s differs (%v); UPDATE_GOLDEN=1 writes what is there now", file, err)
			}
		}
	}
}

// TestJSONIsWhole: what the JSON says is the whole result.
func TestJSONIsWhole(t *testing.T) {
	for name, want := range samples() {
		b, err := want.JSON()
		if err != nil {
			t.Fatal(err)
		}
		var got Result
		if err := json.Unmarshal(b, &got); err != nil || !reflect.DeepEqual(&got, want) {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, want)
		}
	}
}

// TestDrawing: a picture is well-formed, fits into its width, has a title and a description, and names nothing outside of itself.
func TestDrawing(t *testing.T) {
	for name, res := range samples() {
		for _, rd := range append(res.Rounds, Round{No: 9, From: "n1"}) {
			for _, width := range []int{wide, narrow} {
				text := Draw(rd, width, "x")
				for _, want := range []string{"<title id=\"x-title\">", "<desc id=\"x-desc\">", `role="img"`, "prefers-color-scheme: dark"} {
					if !strings.Contains(text, want) {
						t.Errorf("%s, %d wide: no %s", name, width, want)
					}
				}
				if strings.Contains(text, "NaN") || strings.Contains(text, "Inf") || strings.Contains(strings.ReplaceAll(text, "http://www.w3.org/2000/svg", ""), "://") {
					t.Errorf("%s, %d wide:\n%s", name, width, text)
				}
				checkPlaces(t, name, text, width)
			}
		}
	}
}

// checkPlaces looks at every element: none begins outside of the picture.
func checkPlaces(t *testing.T, name, text string, width int) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(text))
	elements := 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%s, %d wide: %v", name, width, err)
		}
		e, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		elements++
		for _, a := range e.Attr {
			var x float64
			if strings.Contains(" x x1 x2 cx ", " "+a.Name.Local+" ") {
				if _, err := fmt.Sscan(a.Value, &x); err != nil || x < 0 || x > float64(width) {
					t.Errorf("%s, %d wide: %s %s=%q", name, width, e.Name.Local, a.Name.Local, a.Value)
				}
			}
		}
	}
	if elements < 20 {
		t.Errorf("%s, %d wide: %d elements", name, width, elements)
	}
}

// TestWrite: the folder has all files, and the page needs none of them.
func TestWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := Write(dir, samples()["failed"]); err != nil {
		t.Fatal(err)
	}
	var names []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if want := []string{"report.html", "report.json", "report.md", "round1.svg", "round2.svg"}; !reflect.DeepEqual(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
	page, err := os.ReadFile(filepath.Join(dir, "report.html"))
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"src=", "href=", "<script", "url(", "@import"} {
		if strings.Contains(string(page), bad) {
			t.Errorf("the page has %s", bad)
		}
	}
	if strings.Contains(string(page), "<test>") {
		t.Error("a name was not escaped")
	}
}
