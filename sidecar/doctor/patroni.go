package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Checks of Patroni and the DCS.

func dcsAnswers(f Facts) []Finding {
	switch {
	case f.Static:
		return one(unexamined("there is none: a single PostgreSQL without Patroni"))
	case f.DCS.Err != "" && f.DCS.Refused:
		return one(broken("docs/dcs.md has all that the sidecar must be allowed, and what to type", "%s refuses: %s", f.DCS.Name, f.DCS.Err))
	case f.DCS.Err != "" && f.answered():
		return one(warning("ask on a member, or let this machine reach the DCS", "%s does not answer this machine, but sidecars do: %s", f.DCS.Name, f.DCS.Err))
	case f.DCS.Err != "":
		return one(broken("see that the DCS runs and that Patroni reaches it:\n  "+f.patronictl()+" list", "%s does not answer: %s", f.DCS.Name, f.DCS.Err))
	case len(f.DCS.Warnings) > 0:
		return one(warning("compare scope and namespace here with those of Patroni, and the versions of the sidecars", "%s answers, and not all of it can be understood: %s", f.DCS.Name, f.DCS.Warnings[0]))
	}
	return one(ok("%s answers", f.DCS.Name))
}

// answered says whether the DCS answers a sidecar.
func (f Facts) answered() bool {
	return slices.ContainsFunc(f.Nodes, func(n Node) bool { return n.answers() && n.Sidecar.DCSErr == "" })
}

// live counts the sidecars that are there.
func (f Facts) live() (n int) {
	for _, node := range f.Nodes {
		if node.alive() {
			n++
		}
	}
	return n
}

// A record that is in the DCS was written there, and is bound to a lease: it proves more than any question of ours.
func dcsPermits(f Facts) []Finding {
	if f.Static || f.REST {
		return one(unexamined("nothing is written there"))
	}
	var all []Finding
	for _, n := range f.Nodes {
		if n.Sidecar.DCSErr != "" {
			all = append(all, broken("docs/dcs.md has all that the sidecar must be allowed, and what to type", "the sidecar of %s: %s", nodesHere, n.Sidecar.DCSErr).on(n.Name))
		} else if n.Sidecar.Live {
			all = append(all, ok("%s", nodesHere+" may write").on(n.Name))
		}
	}
	if len(all) == 0 {
		return one(warning("start the sidecars, and ask again", "nobody has written there yet, so it is not known whether a sidecar may"))
	}
	return alike(all)
}

func restAPI(f Facts) []Finding {
	if f.Static {
		return one(unexamined("there is no Patroni"))
	}
	var all []Finding
	for _, n := range f.Nodes {
		if n.REST.Err != "" {
			all = append(all, warning("see that Patroni runs there, and that this machine may reach it", "%s does not answer: %s", nodesHere, n.REST.Err).on(n.Name))
		} else {
			all = append(all, ok("Patroni %s on %s", cmp.Or(n.REST.Version, "(unknown)"), nodesHere).on(n.Name))
		}
	}
	if len(all) == 0 && f.Patroni.Err != "" {
		return one(warning("see that Patroni runs, and that this machine may reach it", "%s", f.Patroni.Err))
	}
	return orNobody(alike(all))
}

func leaderKnown(f Facts) []Finding {
	if f.Static {
		return one(unexamined("there is no Patroni"))
	}
	var leads []string
	for _, n := range f.Nodes {
		if n.Leader {
			leads = append(leads, n.Name)
		}
	}
	switch {
	case len(leads) == 0 && len(f.Nodes) == 0:
		return one(broken("compare scope and namespace here with those of Patroni", "Patroni has no member in cluster %s", f.Scope))
	case len(leads) == 0:
		return one(broken("see what Patroni says: "+f.patronictl()+" list", "nobody leads: nothing new is shipped, and no timeline is opened"))
	case f.DCS.Paused:
		return one(warning("when the maintenance is over:\n  "+f.patronictl()+" resume "+f.Cluster, "%s leads, and Patroni is paused", leads[0]))
	case f.StandbyCluster:
		return one(ok("%s leads a standby cluster", leads[0]))
	}
	return one(ok("%s leads", leads[0]))
}

func identity(f Facts) []Finding {
	type said struct {
		who string
		id  uint64
	}
	var all []said
	add := func(who string, id uint64) {
		if id != 0 {
			all = append(all, said{who, id})
		}
	}
	add("Patroni", f.DCS.SystemID)
	if f.Local != nil {
		add("the data directory here", f.Local.SystemID)
	}
	for _, n := range f.Nodes {
		add(n.Name, n.SQL.SystemID)
		add("the sidecar of "+n.Name, n.Sidecar.SystemID)
	}
	if len(all) == 0 {
		return one(warning("ask on a member", "nobody says it"))
	}
	for _, s := range all[1:] {
		if s.id != all[0].id {
			return one(broken("one of them belongs to another cluster: see its data directory and its scope before you do anything else",
				"%s has %d, and %s %d", all[0].who, all[0].id, s.who, s.id))
		}
	}
	return one(ok("%d, all agree", all[0].id))
}

const (
	skewWarns  = 2 * time.Second  // times of commits are compared between nodes, by people and by locate
	skewBreaks = 10 * time.Minute // stores refuse requests that are 15 minutes off
)

// clock is one clock against this machine's.
type clock struct {
	who           string
	offset, exact time.Duration
}

// clocks of the nodes. What counts is how far they are apart; where this machine alone is off, that is its own matter.
func clocks(f Facts) []Finding {
	all := f.clocks()
	if len(all) == 0 {
		return one(unexamined("no node told the time"))
	}
	slices.SortStableFunc(all, func(a, b clock) int { return cmp.Compare(a.offset, b.offset) })
	first, last := all[0], all[len(all)-1]
	apart, unsure := last.offset-first.offset, last.exact+first.exact
	const fix = "let all of them follow the same time server: timedatectl status"
	switch {
	case len(all) == 1 && first.offset.Abs()-first.exact > skewWarns:
		return one(warning(fix, "%s and this machine are %s apart", first.who, spanText(first.offset.Abs())))
	case len(all) == 1:
		return one(ok("%s and this machine agree", first.who))
	case apart-unsure > skewBreaks:
		return one(broken(fix, "%s is %s ahead of %s: a store refuses who is a quarter of an hour off", last.who, spanText(apart), first.who))
	case apart-unsure > skewWarns:
		return one(warning(fix, "%s is %s ahead of %s: what is restored to a time can be more or less than is meant", last.who, spanText(apart), first.who))
	}
	return one(ok("%d nodes agree to %s", len(all), spanText(max(apart, 10*time.Millisecond))))
}

// clocks gives each node's once: by its server, else by its sidecar.
func (f Facts) clocks() (all []clock) {
	for _, n := range f.Nodes {
		switch {
		case n.SQL.Err == "" && n.SQL.Exact > 0:
			all = append(all, clock{n.Name, n.SQL.Offset, n.SQL.Exact})
		case n.Sidecar.Err == "" && n.Sidecar.Exact > 0:
			all = append(all, clock{n.Name, n.Sidecar.Offset, n.Sidecar.Exact})
		}
	}
	return all
}

// spanText writes a time as people say it.
func spanText(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.3g s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%d minutes", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d hours", int(d.Hours()))
	case d >= 2*365*24*time.Hour:
		return "years"
	}
	return fmt.Sprintf("%d days", int(d.Hours())/24)
}
