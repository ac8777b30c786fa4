// Package doctor says what is not as it must be around walbaton, and what to type about it: the manual of `walbaton doctor`.
//
//	findings := doctor.Examine(facts)   // pure: the facts were gathered elsewhere
//	doctor.Print(os.Stdout, facts, findings, doctor.Style{})
//
// [Facts] is plain data: what this machine, each node's PostgreSQL, Patroni, the DCS, each sidecar and each archive said, or why they
// did not. Each check is one small function of it and gives a line for all nodes that are alike, and one for each that is not.
//
// Of settings the server itself has the last word: pg_settings on each node says what is in effect, whoever set it, and since when it
// waits for a restart. Where a server lets nobody ask, its sidecar does (/status.json). Patroni's dynamic configuration is only what is
// meant to be: a node's own file and ALTER SYSTEM both override it; so it serves to say which fix is the right one.
//
// A line is [OK], a [Warning] (it works, and could fail you), [Broken], or [Unexamined], where there is nothing to look at: the data directory on
// a machine that is no member, for example. What could not be looked at, though it should be, is a Warning. Every Warning and every
// Broken has a fix: words, and below them lines that begin with two blanks, which can be typed as they are.
package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Level says how good or bad a finding is.
type Level string

// The levels, the best first.
const (
	Unexamined Level = "unexamined"
	OK         Level = "ok"
	Warning    Level = "warning"
	Broken     Level = "broken"
)

// Finding is one line.
type Finding struct {
	Group string   `json:"group"`
	Check string   `json:"check"` // its name, which stays the same
	Level Level    `json:"level"`
	Nodes []string `json:"nodes,omitempty"` // that it is about, where it is about some
	Text  string   `json:"text"`
	Fix   string   `json:"fix,omitempty"` // of Warning and Broken
}

// The groups, in the order in which they are printed.
const (
	groupHere     = "This node"
	groupPostgres = "PostgreSQL"
	groupPatroni  = "Patroni and the DCS"
	groupSidecars = "Sidecars"
	groupArchive  = "Archive"
	groupRisk     = "What is at risk"
)

// check is one thing that must be true.
type check struct {
	group, name string
	run         func(Facts) []Finding
}

// checks are all of them, in the order in which they are printed.
func checks() []check {
	return []check{
		{groupHere, "configuration", configuration},
		{groupHere, "data directory", dataDirectory},
		{groupHere, "pg_wal", walDirectory},
		{groupHere, "user", sameUser},
		{groupHere, "socket", socket},
		{groupHere, "walbaton-wal", client},
		{groupHere, "keep_dir", keepDir},

		{groupPostgres, "connections", connections},
		{groupPostgres, "archive_mode", archiveMode},
		{groupPostgres, "archive_command", archiveCommand},
		{groupPostgres, "restore_command", restoreCommand},
		{groupPostgres, "pending restart", pendingRestart},
		{groupPostgres, "version", postgresVersion},

		{groupPatroni, "DCS", dcsAnswers},
		{groupPatroni, "DCS permissions", dcsPermits},
		{groupPatroni, "REST API", restAPI},
		{groupPatroni, "leader", leaderKnown},
		{groupPatroni, "system identifier", identity},
		{groupPatroni, "clocks", clocks},

		{groupSidecars, "sidecars", sidecarsLive},
		{groupSidecars, "versions", sidecarVersions},
		{groupSidecars, "readiness", sidecarsReady},
		{groupSidecars, "baton", baton},
		{groupSidecars, "tags", tags},
		{groupSidecars, "alarms", alarms},

		{groupArchive, "store", storeAnswers},
		{groupArchive, "put if absent", putIfAbsent},
		{groupArchive, "identity", archiveIdentity},
		{groupArchive, "store's clock", storeClock},
		{groupArchive, "history files", historyFiles},
		{groupArchive, "holes", holes},
		{groupArchive, "restore", restorable},

		{groupRisk, "missing segments", missingSegments},
		{groupRisk, "nobody has", nobodyHas},
		{groupRisk, "one node alone", oneAlone},
		{groupRisk, "disk of pg_wal", diskOfWAL},
	}
}

// Examine says what is and what is not as it must be.
func Examine(f Facts) []Finding {
	var out []Finding
	for _, c := range checks() {
		for _, found := range c.run(f) {
			found.Group, found.Check = c.group, c.name
			out = append(out, found)
		}
		if c.name == "configuration" && f.ConfigurationErr != "" {
			return out // nobody knows whom to ask
		}
	}
	return out
}

// Worst is the worst level of the findings; OK where there are none.
func Worst(all []Finding) Level {
	worst := OK
	for _, f := range all {
		if f.Level == Broken || f.Level == Warning && worst == OK {
			worst = f.Level
		}
	}
	return worst
}

// Count is how many findings have a level.
func Count(all []Finding, l Level) (n int) {
	for _, f := range all {
		if f.Level == l {
			n++
		}
	}
	return n
}

func ok(format string, args ...any) Finding {
	return Finding{Level: OK, Text: fmt.Sprintf(format, args...)}
}

func unexamined(format string, args ...any) Finding {
	return Finding{Level: Unexamined, Text: fmt.Sprintf(format, args...)}
}

func warning(fix, format string, args ...any) Finding {
	return Finding{Level: Warning, Fix: fix, Text: fmt.Sprintf(format, args...)}
}

func broken(fix, format string, args ...any) Finding {
	return Finding{Level: Broken, Fix: fix, Text: fmt.Sprintf(format, args...)}
}

// on adds the nodes that a finding is about.
func (f Finding) on(nodes ...string) Finding {
	f.Nodes = nodes
	return f
}

func one(f Finding) []Finding { return []Finding{f} }

// alike joins findings that only differ in their node; nodesHere stands in their text for all of those.
func alike(all []Finding) []Finding {
	var out []Finding
	for _, f := range all {
		at := slices.IndexFunc(out, func(o Finding) bool {
			return o.Level == f.Level && o.Text == f.Text && (o.Fix == f.Fix || o.Level == OK)
		})
		if at < 0 {
			f.Nodes = slices.Clone(f.Nodes)
			out = append(out, f)
			continue
		}
		out[at].Nodes = append(out[at].Nodes, f.Nodes...)
	}
	for i := range out {
		out[i].Text = strings.ReplaceAll(out[i].Text, nodesHere, list(out[i].Nodes))
		out[i].Fix = strings.ReplaceAll(out[i].Fix, nodesHere, list(out[i].Nodes))
	}
	slices.SortStableFunc(out, func(a, b Finding) int { return cmp.Compare(rank(b.Level), rank(a.Level)) })
	return out
}

// nodesHere stands in a text for the nodes that alike found.
const nodesHere = "\x00"

func rank(l Level) int {
	return slices.Index([]Level{Unexamined, OK, Warning, Broken}, l)
}

// list writes "n1", "n1 and n2", "n1, n2 and n3".
func list(words []string) string {
	switch k := len(words); k {
	case 0:
		return "nobody"
	case 1:
		return words[0]
	default:
		return strings.Join(words[:k-1], ", ") + " and " + words[k-1]
	}
}

// counted writes "1 segment", "2 segments".
func counted[N int | uint64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// verb is "has" for one and "have" for several, and so on.
func verb(nodes []string, one, several string) string {
	if len(nodes) == 1 {
		return one
	}
	return several
}
