package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/walbaton/walbaton/sidecar/setup"
)

// differenceText shows the difference, for people.
func differenceText(f setup.Facts, c setup.Changes, asked string, applying bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "cluster   %s: %s\nasked     %s\n\n", f.Scope, memberList(f), asked)
	for _, s := range c.Settings {
		b.WriteString(settingText(s))
	}
	b.WriteString(ownText(c))
	for _, w := range c.Warnings {
		fmt.Fprintf(&b, "! %s\n", w)
	}
	for _, n := range c.Notes {
		fmt.Fprintf(&b, "- %s\n", n)
	}
	if len(c.Own)+len(c.Warnings)+len(c.Notes) > 0 {
		b.WriteString("\n")
	}
	if len(c.Restart) > 0 {
		when := "restart   "
		if len(c.Patch) > 0 {
			when = "restart   afterwards "
		}
		fmt.Fprintf(&b, "%s%s\n\n", when, inOrder(c.Restart))
	}
	switch {
	case c.Done():
		b.WriteString("Nothing is to do.\n")
	case applying:
	case len(c.Patch) > 0:
		b.WriteString("Nothing was changed. walbaton setup --apply makes it.\n")
	case len(c.Restart) > 0:
		b.WriteString("walbaton setup --apply --restart restarts them, one at a time.\n")
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// memberList names the members with their versions, the leader first.
func memberList(f setup.Facts) string {
	nodes := slices.Clone(f.Nodes)
	slices.SortStableFunc(nodes, func(a, b setup.Node) int {
		return cmp.Compare(mark(a.Leads, "0", "1"), mark(b.Leads, "0", "1"))
	})
	var all []string
	for _, n := range nodes {
		var more []string
		switch {
		case n.Standby:
			more = append(more, "standby leader")
		case n.Leads:
			more = append(more, "leader")
		}
		if n.Version > 0 {
			more = append(more, fmt.Sprintf("PostgreSQL %d.%d", n.Version/10000, n.Version%10000))
		}
		if n.Patroni != "" {
			more = append(more, "Patroni "+n.Patroni)
		}
		if !n.Running {
			more = append(more, n.State)
		}
		all = append(all, n.Name+" ("+strings.Join(more, ", ")+")")
	}
	return strings.Join(all, "; ")
}

func settingText(s setup.Setting) string {
	var b strings.Builder
	if !s.Change {
		fmt.Fprintf(&b, "= %s  (%s)\n    is right  %s\n", s.Name, s.Place, s.Now)
	} else {
		fmt.Fprintf(&b, "~ %s  (%s)\n    now       %s\n    wanted    %s\n    why       %s\n    takes     %s\n", s.Name, s.Place, orUnset(s.Now), orUnset(s.Wanted), s.Why, s.Takes)
	}
	var values []string
	names := map[string][]string{}
	for _, n := range s.Nodes {
		if names[n.Value] == nil {
			values = append(values, n.Value)
		}
		names[n.Value] = append(names[n.Value], n.Node)
	}
	for _, v := range values {
		fmt.Fprintf(&b, "    in effect %s: %s\n", strings.Join(names[v], ", "), orUnset(v))
	}
	return b.String() + "\n"
}

func orUnset(s string) string { return cmp.Or(s, "(not set)") }

// ownText is about what nodes have of their own.
func ownText(c setup.Changes) string {
	var b strings.Builder
	for _, o := range c.Own {
		if o.Fine {
			fmt.Fprintf(&b, "- %s has %s of its own, which is right: %s (%s)\n", o.Node, o.Name, orUnset(o.Value), o.Where)
			continue
		}
		fmt.Fprintf(&b, "! %s has %s of its own, and that beats Patroni's dynamic configuration: %s (%s)\n  %s\n", o.Node, o.Name, orUnset(o.Value), o.Where, o.Fix)
	}
	return b.String()
}

// leftText says what is left after --apply.
func leftText(c setup.Changes, applied bool) string {
	var b strings.Builder
	if own := ownText(setup.Changes{Own: c.Beaten()}); own != "" {
		b.WriteString("\n" + own)
	}
	switch {
	case c.Done():
		b.WriteString("\nDone: nothing is left to do.\n")
		if applied {
			b.WriteString("Take a base backup, if there is none since walbaton archives (docs/base-backups.md).\n")
		}
	case len(c.Restart) > 0:
		fmt.Fprintf(&b, "\nA restart is left for %s: archive_mode counts from the next start of PostgreSQL.\n  walbaton setup --apply --restart, or patronictl restart in this order\n", inOrder(c.Restart))
	}
	return b.String()
}
