package docs

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	p, err := parse("docs/x.md", strings.ReplaceAll(`# Title

## First

| a | b |
| --- | --- |

<!-- every node -->

'''sh run=TestDrillPages
walbaton status
'''

1. A list:

   '''yaml
   a:
     b: 1
   '''

## Second

<!-- nothing -->
Words.

'''console
$ walbaton list
# not run: it is only here
'''
`, "'''", "```"))
	if err != nil {
		t.Fatal(err)
	}
	want := []Block{
		{Page: "docs/x.md", Line: 10, Section: "First", Where: "every node", Kind: "sh", Run: "TestDrillPages", Text: "walbaton status\n"},
		{Page: "docs/x.md", Line: 16, Section: "First", Kind: "yaml", Text: "a:\n  b: 1\n"},
		{Page: "docs/x.md", Line: 26, Section: "Second", Kind: "console", Text: "$ walbaton list\n# not run: it is only here\n"},
	}
	if len(p.Blocks) != len(want) {
		t.Fatalf("got %d blocks: %+v", len(p.Blocks), p.Blocks)
	}
	for i, b := range p.Blocks {
		if b != want[i] {
			t.Errorf("got  %+v\nwant %+v", b, want[i])
		}
	}
	if got := p.Blocks[2].NotRun(); got != "it is only here" {
		t.Errorf("the reason is %q", got)
	}
	if got := p.Of("TestDrillPages"); len(got) != 1 || got[0] != want[0] {
		t.Errorf("of the drill are %+v", got)
	}
	if len(p.Sections) != 2 || len(p.Rows) != 2 || p.Rows[0][1] != "b" {
		t.Errorf("sections %q, rows %q", p.Sections, p.Rows)
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"```sh runs=TestX\nls\n```\n": `x.md:1: "runs=TestX" is not known`,
		"\n```sh\nls\n":               "x.md:2: this block is never closed",
	} {
		if _, err := parse("x.md", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
