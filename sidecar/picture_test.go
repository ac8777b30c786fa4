package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
)

// drawn makes reports as verify gives them; segments have 1 MB.
type drawn struct{ *archiver.Audit }

func newDrawn(name string) drawn {
	return drawn{&archiver.Audit{Archive: name, SegmentSize: 1 << 20, Floors: []archiver.Floor{{Timeline: 1, LSN: 1 << 20}}}}
}

// timeline adds one whose segments are numbered from first to last. A fork of 0 is none.
func (d drawn) timeline(t, parent wal.Timeline, fork wal.LSN, first, last uint64, onLine bool) *archiver.AuditTimeline {
	a, b := wal.Segment{Timeline: t, Size: 1 << 20, No: first}, wal.Segment{Timeline: t, Size: 1 << 20, No: last}
	l := archiver.AuditTimeline{Timeline: t, Parent: parent, OnLine: onLine, Segments: int(last-first) + 1, First: a.String(), Last: b.String(),
		Begin: a.Start().String(), End: b.End().String(), History: true}
	if fork > 0 {
		l.Fork = fork.String()
	}
	d.Timelines = append(d.Timelines, l)
	if onLine {
		d.Line = append(d.Line, t)
	}
	return &d.Timelines[len(d.Timelines)-1]
}

func (d drawn) hole(t wal.Timeline, first, last uint64, known bool) {
	a, b := wal.Segment{Timeline: t, Size: 1 << 20, No: first}, wal.Segment{Timeline: t, Size: 1 << 20, No: last}
	p := archiver.Problem{Kind: archiver.ProblemHole, Name: a.String(), Timeline: t, From: a.String(), To: b.String(), Count: last - first + 1}
	if known {
		p.Acknowledged = &archiver.Acknowledgment{Reason: "disk"}
	}
	d.Problems = append(d.Problems, p)
}

// pictures are the archives that a reviewer should see.
func pictures() map[string]drawn {
	one := newDrawn("file:///backup/shop/7710542482846769188")
	one.timeline(1, 0, 0, 1, 40, true)

	three := newDrawn("s3://bucket/" + strings.Repeat("a-long-prefix/", 9) + "a <scope> & more/7710542482846769188")
	three.timeline(1, 0, 0, 1, 60, true).Backups = 2
	branch := three.timeline(2, 1, 30<<20+0x5000, 30, 55, false)
	branch.Partials = 1
	three.timeline(3, 1, 60<<20+0x1000, 60, 100, true)
	three.hole(1, 10, 14, true)
	three.hole(3, 70, 70, false)
	three.Problems = append(three.Problems, archiver.Problem{Kind: archiver.ProblemMissingHistory, Name: "00000002.history", Timeline: 2},
		archiver.Problem{Kind: archiver.ProblemDamaged, Name: "000000030000000000000050", Timeline: 3})
	three.Orphans = []string{"n1/000000010000000000000040-b7598e9fa6abfdace11d8fa82983e7bd", "n2/00000001000000000000003D-b7598e9fa6abfdace11d8fa82983e7be"}
	three.Floors = append(three.Floors, archiver.Floor{Timeline: 1, LSN: 5 << 20})

	twelve := newDrawn("s3://bucket/twelve/42")
	fork, parent := wal.LSN(0), wal.Timeline(0)
	for t := wal.Timeline(1); t <= 12; t++ {
		first := max(uint64(fork>>20), 1)
		onLine := t%4 != 0
		twelve.timeline(t, parent, fork, first, first+uint64(t)*7, onLine)
		if onLine {
			parent = t
			fork = wal.LSN(first+uint64(t)*5)<<20 + 0x100
		}
	}
	for no := uint64(170); no < 220; no += 9 {
		twelve.hole(10, no, no+no%3, no%2 == 0)
	}
	twelve.timeline(4_294_967_295, 0, 0, 300, 320, false)

	nothing := newDrawn("file:///backup/empty/42")
	nothing.Timelines = []archiver.AuditTimeline{{Timeline: 2, History: true, Parent: 1, Fork: "0/3000000"}}
	return map[string]drawn{"one": one, "three": three, "twelve": twelve, "nothing": nothing}
}

// TestPictures writes down what verify --tree and --svg draw: testdata/picture-*.golden, and .svg for a browser.
func TestPictures(t *testing.T) {
	for name, d := range pictures() {
		p := draw(d.Audit)
		text := p.text(unicodePens, 60) + "\nThe same where the terminal knows ASCII alone:\n\n" + p.text(asciiPens, 60)
		compareGolden(t, "picture-"+name, text)
		for _, r := range p.text(asciiPens, 60) {
			if r > 126 {
				t.Errorf("%s: %q is not ASCII", name, r)
			}
		}
		svg := p.svg()
		file := filepath.Join("testdata", "picture-"+name+".svg")
		if *update {
			writeFile(t, "testdata", "picture-"+name+".svg", svg)
		}
		if want, err := os.ReadFile(file); err != nil || string(want) != svg {
			t.Errorf("%s is not what the program draws now (%v); look at it in light and in dark, and write it with -update", file, err)
		}
		checkSVG(t, name, svg, d)
	}
}

// checkSVG: it is well-formed, nothing in it is from elsewhere, and it says in words what it shows.
func checkSVG(t *testing.T, name, svg string, d drawn) {
	t.Helper()
	x := xml.NewDecoder(strings.NewReader(svg))
	for {
		_, err := x.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	for _, s := range []string{"href", "url(", "<script", "@import"} {
		if strings.Contains(svg, s) {
			t.Errorf("%s: it has %q", name, s)
		}
	}
	for _, s := range []string{`role="img"`, `<title id="title">Timelines of `, "prefers-color-scheme: dark"} {
		if !strings.Contains(svg, s) {
			t.Errorf("%s: it lacks %q", name, s)
		}
	}
	for _, l := range d.Timelines {
		if want := fmt.Sprintf("Timeline %d", l.Timeline); strings.Count(svg, want) < 2 {
			t.Errorf("%s: %s is not told of, in the description and at its row", name, want)
		}
	}
	holes := 0
	for _, p := range d.Problems {
		if p.Kind == archiver.ProblemHole {
			holes++
		}
	}
	if got := strings.Count(svg, "are missing</title>"); got != holes {
		t.Errorf("%s: %d holes are drawn, want %d", name, got, holes)
	}
}

// Which terminal knows more than ASCII is what locale(7) says: LC_ALL before LC_CTYPE before LANG.
func TestPens(t *testing.T) {
	for _, tc := range []struct {
		env  map[string]string
		want pens
	}{
		{nil, asciiPens},
		{map[string]string{"LANG": "C"}, asciiPens},
		{map[string]string{"LANG": "en_US.UTF-8"}, unicodePens},
		{map[string]string{"LANG": "de_DE.utf8"}, unicodePens},
		{map[string]string{"LANG": "en_US.UTF-8", "LC_ALL": "C"}, asciiPens},
		{map[string]string{"LC_CTYPE": "C.UTF-8", "LANG": "C"}, unicodePens},
	} {
		if got := pensFor(func(k string) string { return tc.env[k] }); got != tc.want {
			t.Errorf("%v: %v", tc.env, got)
		}
	}
}
