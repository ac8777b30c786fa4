package doctor

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestPrint(t *testing.T) {
	f := healthy()
	found := []Finding{
		{Group: groupHere, Check: "data directory", Level: Unexamined, Text: "not on a member"},
		{Group: groupHere, Check: "pg_wal", Level: Unexamined, Text: "not on a member"},
		{Group: groupPostgres, Check: "archive_mode", Level: Warning, Text: "on on n1: best effort. What the archive lacks when the primary dies is healed from what pg_wal elsewhere still has",
			Fix: "set it for the cluster:\n  patronictl -c /etc/patroni/config.yml edit-config shop --force -p archive_mode=always -p another=that_is_long\nand then it takes a restart"},
		{Group: groupPostgres, Check: "archive_mode", Level: OK, Text: "always on n2"},
		{Group: groupRisk, Check: "one node alone", Level: Broken, Text: "n2 alone has 40 segments: do not reinit it", Fix: "wait"},
	}
	var b strings.Builder
	if err := Print(&b, f, found, Style{}); err != nil {
		t.Fatal(err)
	}
	want := `This node
  - data directory…    not on a member

PostgreSQL
  ! archive_mode       on on n1: best effort. What the archive lacks when the primary dies is healed
                       from what pg_wal elsewhere still has
                       → set it for the cluster:
                           patronictl -c /etc/patroni/config.yml edit-config shop --force -p archive_mode=always -p another=that_is_long
                         and then it takes a restart
  ✓                    always on n2

What is at risk
  ✗ one node alone     n2 alone has 40 segments: do not reinit it
                       → wait

1 ✓, 1 !, 1 ✗, 2 not examined: something is broken. Begin with the first ✗
`
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	b.Reset()
	if err := Print(&b, f, found, Style{Color: true}); err != nil {
		t.Fatal(err)
	}
	plain := regexp.MustCompile("\x1b\\[[0-9]+m").ReplaceAllString(b.String(), "")
	if plain != want || plain == b.String() {
		t.Errorf("in color: got\n%q", b.String())
	}
}

// What is printed of anything fits into 100 columns, but for commands.
func TestWidth(t *testing.T) {
	f := healthy()
	f.quiet()
	f.DCS.Err, f.Archives[0].Err = strings.Repeat("no answer ", 20), "no"
	set(&f, "archive_command", Setting{Value: "/bin/true", File: "/data/postgresql.auto.conf"})
	var b strings.Builder
	if err := Print(&b, f, Examine(f), Style{}); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 100 && !strings.HasPrefix(line, strings.Repeat(" ", texts+4)) {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

func TestSummary(t *testing.T) {
	for want, levels := range map[string][]Level{
		"2 ✓, 0 !, 0 ✗: all is well":                                 {OK, OK},
		"1 ✓, 0 !, 0 ✗, 1 not examined: all is well":                 {OK, Unexamined},
		"1 ✓, 1 !, 0 ✗: it works, and could fail you":                {Warning, OK},
		"0 ✓, 1 !, 1 ✗: something is broken. Begin with the first ✗": {Broken, Warning},
	} {
		var all []Finding
		for _, l := range levels {
			all = append(all, Finding{Level: l})
		}
		if got := Summary(all); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestPrintJSON(t *testing.T) {
	f := healthy()
	f.Nodes[1].Tag = "never"
	found := Examine(f)
	var b strings.Builder
	if err := PrintJSON(&b, f, found); err != nil {
		t.Fatal(err)
	}
	var got Report
	if err := json.Unmarshal([]byte(b.String()), &got); err != nil {
		t.Fatal(err)
	}
	if got.Level != Warning || got.Warnings != 1 || got.Broken != 0 || got.OK != len(found)-1 || got.Cluster != "shop" || len(got.Findings) != len(found) {
		t.Errorf("got %+v", got)
	}
	if !strings.Contains(b.String(), `"check": "tags"`) || !strings.Contains(b.String(), `"nodes": [`) {
		t.Errorf("got %s", b.String())
	}
}
