package doctor

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Checks of each node's PostgreSQL.

// runs says whether a server that could be asked is to be expected.
func (n Node) runs() bool { return n.State == "" || n.State == "running" || n.State == "streaming" }

func connections(f Facts) []Finding {
	if len(f.Nodes) == 0 {
		return one(unexamined("no member is known"))
	}
	var all []Finding
	for _, n := range f.Nodes {
		switch {
		case n.SQL.Err == "":
			all = append(all, ok("%s answered", nodesHere).on(n.Name))
		case !n.runs():
			all = append(all, warning("see why it does not run:\n  "+f.patronictl()+" list", "PostgreSQL of %s is %s: %s", nodesHere, n.State, n.SQL.Err).on(n.Name))
		case n.Sidecar.ArchiveCommand != "" && n.REST.Err == "": // nothing is missed
			all = append(all, ok("%s did not (%s); sidecar and Patroni say what is in effect there", nodesHere, n.SQL.Err).on(n.Name))
		default:
			fix := fmt.Sprintf("let Patroni's superuser connect to it from here (pg_hba), or ask on %s itself. Its sidecar says below what it knows", n.Name)
			all = append(all, warning(fix, "%s: %s", nodesHere, n.SQL.Err).on(n.Name))
		}
	}
	return alike(all)
}

// setting is what is in effect on a node, by its own words, else by its sidecar's. Known is false where nobody says.
func (n Node) setting(name string) (value string, known bool) {
	if n.SQL.Err == "" {
		s, is := n.SQL.Settings[name]
		return s.Value, is
	}
	switch name {
	case "archive_mode":
		value = n.Sidecar.ArchiveMode
	case "archive_command":
		value = n.Sidecar.ArchiveCommand
	case "restore_command":
		return n.Sidecar.RestoreCommand, n.Sidecar.ArchiveCommand != "" // it says both or none
	}
	return value, value != ""
}

func archiveMode(f Facts) []Finding {
	var all []Finding
	for _, n := range f.Nodes {
		mode, known := n.setting("archive_mode")
		switch {
		case !known:
			all = append(all, f.unknown(n, "archive_mode"))
		case mode == "always":
			all = append(all, ok("always on %s", nodesHere).on(n.Name))
		case mode == "on" && f.Static:
			all = append(all, ok("on (there is no standby that would need always)").on(n.Name))
		case mode == "on":
			all = append(all, warning(f.setMode(n), "on on %s: best effort. What the archive lacks when the primary dies is healed from what pg_wal elsewhere still has", nodesHere).on(n.Name))
		default:
			all = append(all, broken(f.setMode(n), "%s on %s: PostgreSQL removes WAL that the archive does not have", mode, nodesHere).on(n.Name))
		}
	}
	return orNobody(f.withRestarts(alike(all)))
}

func orNobody(all []Finding) []Finding {
	if len(all) == 0 {
		return one(unexamined("no member is known"))
	}
	return all
}

// unknown is about a setting of a node that nobody could tell of.
func (f Facts) unknown(n Node, name string) Finding {
	meant := ""
	if v, is := f.Patroni.Parameter(name); is {
		if strings.HasSuffix(name, "_command") {
			v = Shown(v)
		}
		meant = fmt.Sprintf("; the dynamic configuration has %q, which the node's own file may override", v)
	}
	return warning("ask on that node: walbaton doctor", "not known on %s%s", nodesHere, meant).on(n.Name)
}

// setMode is what to type for archive_mode = always.
func (f Facts) setMode(n Node) string {
	if f.Static {
		return "set it, and restart PostgreSQL:\n  psql -c \"alter system set archive_mode = 'always'\""
	}
	if meant, _ := f.Patroni.Parameter("archive_mode"); meant == "always" && n.SQL.Settings["archive_mode"].Pending {
		return "the cluster has always, and waits for a restart:" + restartsHere
	}
	return fmt.Sprintf("set it for the cluster (or let walbaton setup do all of it):\n  %s edit-config %s --force -p archive_mode=always\nand, as soon as %s list shows a pending restart:%s",
		f.patronictl(), f.Cluster, f.patronictl(), restartsHere)
}

// restartsHere stands in a fix for the commands that restart its nodes.
const restartsHere = "\x01"

// withRestarts puts them in, replicas first.
func (f Facts) withRestarts(all []Finding) []Finding {
	for i, x := range all {
		nodes := slices.Clone(x.Nodes)
		slices.SortStableFunc(nodes, func(a, b string) int { return f.last(a) - f.last(b) })
		lines := ""
		for _, n := range nodes {
			lines += fmt.Sprintf("\n  %s restart %s %s --force", f.patronictl(), f.Cluster, n)
		}
		all[i].Fix = strings.ReplaceAll(x.Fix, restartsHere, lines)
	}
	return all
}

// last is 1 for the leader.
func (f Facts) last(name string) int {
	if n, _ := f.node(name); n.Leader {
		return 1
	}
	return 0
}

func (f Facts) patronictl() string {
	if f.PatroniConfig == "" {
		return "patronictl"
	}
	return "patronictl -c " + f.PatroniConfig
}

func archiveCommand(f Facts) []Finding {
	return f.commands("archive_command", func(n Node, text string) Finding {
		if library, _ := n.setting("archive_library"); library != "" {
			return broken(f.change(n, "archive_library", ""), "%s has archive_library = %q, which PostgreSQL uses in its place", nodesHere, library)
		}
		c := ParseCommand(text)
		wrong, loose := c.wrong("push", "%p")
		fix := f.change(n, "archive_command", f.wanted(n, "push", "%p"))
		switch {
		case text == "(disabled)":
			return unexamined("disabled by archive_mode on %s", nodesHere)
		case wrong != "":
			return broken(fix, "%s of %s: %s", quoted(text), nodesHere, wrong)
		case n.otherSocket(c):
			return broken(fix, "%s of %s calls another socket than %s, where the sidecar listens", quoted(text), nodesHere, n.Sidecar.Socket)
		case loose != "":
			return warning("leave nothing but walbaton-wal in it once the move is over", "%s of %s: %s", quoted(text), nodesHere, loose)
		}
		return ok("%s on %s", f.form(c), nodesHere)
	})
}

func restoreCommand(f Facts) []Finding {
	if f.Static {
		return one(unexamined("a single PostgreSQL needs one in a restore only"))
	}
	all := f.commands("restore_command", func(n Node, text string) Finding {
		if meant, is := f.Patroni.Parameter("restore_command"); text == "" && n.primary() {
			if !is {
				return unexamined("%s", asStandby)
			}
			text = meant
		}
		c := ParseCommand(text)
		wrong, loose := c.wrong("fetch", "%f", "%p")
		fix := f.change(n, "restore_command", f.wanted(n, "fetch", "%f %p"))
		switch {
		case c.Text == "":
			return warning(fix, "none on %s: a standby that falls behind, and pg_rewind, find no WAL that the primary has recycled", nodesHere)
		case c.Joined != nil && wrong != "" && c.Program != "":
			return warning(fix, "%s of %s: %s", quoted(text), nodesHere, wrong)
		case wrong != "":
			return broken(fix, "%s of %s: %s", quoted(text), nodesHere, wrong)
		case n.otherSocket(c):
			return warning(fix, "%s of %s calls another socket than %s, where the sidecar listens", quoted(text), nodesHere, n.Sidecar.Socket)
		case loose != "":
			return warning("leave nothing but walbaton-wal in it once the move is over", "%s of %s: %s", quoted(text), nodesHere, loose)
		}
		return ok("%s on %s", f.form(c), nodesHere)
	})
	if len(all) > 1 { // the others say what it would be
		all = slices.DeleteFunc(all, func(x Finding) bool { return x.Text == asStandby })
	}
	return all
}

// Patroni writes restore_command into a standby's configuration only.
const asStandby = "a primary has none: Patroni gives it one when it becomes a standby"

// primary says that the server is not in recovery.
func (n Node) primary() bool {
	if n.SQL.Err == "" {
		return !n.SQL.InRecovery
	}
	return n.Leader
}

// commands looks at a command on each node.
func (f Facts) commands(name string, look func(Node, string) Finding) []Finding {
	var all []Finding
	for _, n := range f.Nodes {
		text, known := n.setting(name)
		if !known {
			all = append(all, f.unknown(n, name))
			continue
		}
		all = append(all, look(n, text).on(n.Name))
	}
	return orNobody(alike(all))
}

// otherSocket says that a command calls another socket than the node's sidecar listens on.
func (n Node) otherSocket(c Command) bool {
	return n.Sidecar.Socket != "" && c.Program != "" && c.socketOr() != n.Sidecar.Socket
}

// form is a command that is right, without what differs from node to node.
func (f Facts) form(c Command) string {
	words := append([]string{c.Program[strings.LastIndexByte(c.Program, '/')+1:], c.Verb}, c.Words...)
	return strings.Join(words, " ")
}

// wanted is the command that a node should have.
func (f Facts) wanted(n Node, verb, words string) string {
	program, socket := "/usr/local/bin/walbaton-wal", ""
	for _, name := range []string{"archive_command", "restore_command"} {
		if text, _ := n.setting(name); ParseCommand(text).Program != "" {
			program = strings.TrimSuffix(ParseCommand(text).Program, "-wal") + "-wal"
		}
	}
	if s := n.Sidecar.Socket; s != "" && s != DefaultSocket {
		socket = "--socket " + s + " "
	}
	return fmt.Sprintf("%s %s %s%s", program, verb, socket, words)
}

// change is what to type so that a setting of a node, which can be changed without a restart, becomes what is wanted: where it was set decides.
func (f Facts) change(n Node, name, want string) string {
	s := n.SQL.Settings[name]
	meant, cluster := f.Patroni.Parameter(name)
	psql := fmt.Sprintf("psql -h %s -p %d -U postgres", n.Host, n.Port)
	switch {
	case strings.HasSuffix(s.File, "postgresql.auto.conf"):
		return fmt.Sprintf("somebody used ALTER SYSTEM, which overrides Patroni. Take it back:\n  %s -c \"alter system reset %s\" -c \"select pg_reload_conf()\"", psql, name)
	case f.Static:
		return fmt.Sprintf("set it:\n  psql -c \"alter system set %s = '%s'\" -c \"select pg_reload_conf()\"", name, want)
	case cluster && s.File != "" && meant != s.Value && f.Patroni.Dynamic != nil:
		return fmt.Sprintf("Patroni's own file on %s (postgresql.parameters) overrides the cluster's %s. Take it out there, or set it to\n  %s\nand then\n  %s reload %s %s --force", nodesHere, Shown(meant), want, f.patronictl(), f.Cluster, n.Name)
	case !cluster && f.Patroni.Dynamic != nil && s.Value != "" && s.File != "":
		return fmt.Sprintf("it stands in Patroni's own file on %s (postgresql.parameters). Set it there to\n  %s\nand then\n  %s reload %s %s --force", nodesHere, want, f.patronictl(), f.Cluster, n.Name)
	case want == "":
		return fmt.Sprintf("take it out of the cluster's configuration:\n  %s edit-config %s --force -p %s=null", f.patronictl(), f.Cluster, name)
	}
	return fmt.Sprintf("set it for the cluster, as walbaton setup does:\n  %s edit-config %s --force -p '%s=%s'", f.patronictl(), f.Cluster, name, want)
}

// quoted is a command in a sentence. It can be long and hold what is nobody's business.
func quoted(text string) string {
	if s := Shown(text); s != "" {
		return "'" + s + "'"
	}
	return "the one"
}

func pendingRestart(f Facts) []Finding {
	var all []Finding
	for _, n := range f.Nodes {
		names := map[string]bool{}
		for name, s := range n.SQL.Settings {
			if s.Pending {
				names[name] = true
			}
		}
		for _, name := range n.REST.Reasons {
			names[name] = true
		}
		what := ""
		if len(names) > 0 {
			what = " for " + list(slices.Sorted(maps.Keys(names)))
		}
		const fix = "restart, replicas first:" + restartsHere
		switch {
		case n.SQL.Err != "" && n.REST.Err != "":
			all = append(all, f.unknown(n, ""))
		case what != "" || n.REST.Pending:
			all = append(all, warning(fix, "a restart of %s is pending%s", nodesHere, what).on(n.Name))
		default:
			all = append(all, ok("none on %s", nodesHere).on(n.Name))
		}
	}
	return orNobody(f.withRestarts(alike(all)))
}

func postgresVersion(f Facts) []Finding {
	var all []Finding
	for _, n := range f.Nodes {
		v := cmp.Or(n.SQL.Version, n.REST.Server)
		if v == 0 {
			all = append(all, f.unknown(n, ""))
			continue
		}
		mode, _ := n.setting("archive_mode")
		found := false
		for _, b := range Bugs() {
			if b.Has(v) && (!b.Always || mode == "always") {
				found = true
				all = append(all, warning("update PostgreSQL, replicas first ("+b.Source+")", "%s on %s: %s (%s)", versionText(v), nodesHere, b.Does, b.Update(v)).on(n.Name))
			}
		}
		switch {
		case v < 120000:
			all = append(all, broken("update PostgreSQL: walbaton is for 12 to 18", "%s on %s is too old", versionText(v), nodesHere).on(n.Name))
		case v >= 190000:
			all = append(all, warning("read the release notes of walbaton before you trust it", "%s on %s is newer than what walbaton was tried with, 12 to 18", versionText(v), nodesHere).on(n.Name))
		case !found:
			all = append(all, ok("%s on %s, without a known bug in archiving", versionText(v), nodesHere).on(n.Name))
		}
	}
	return orNobody(alike(all))
}

func versionText(num int) string { return fmt.Sprintf("%d.%d", num/10000, num%10000) }
