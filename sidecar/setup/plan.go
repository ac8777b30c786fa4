package setup

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Changes are what is to be done, and what a person should know before.
type Changes struct {
	Settings []Setting      `json:"settings"`
	Own      []Own          `json:"own"`      // what nodes have of their own
	Restart  []string       `json:"restart"`  // the nodes whose PostgreSQL must be started anew for archive_mode, in the order to do it: the leader last
	Warnings []string       `json:"warnings"` // what to think of before
	Notes    []string       `json:"notes"`
	Patch    map[string]any `json:"patch,omitempty"` // of the dynamic configuration: only what differs; a nil removes
}

// Setting is one of the settings in the dynamic configuration.
type Setting struct {
	Name   string      `json:"name"`
	Place  string      `json:"place"` // where it stands: postgresql.parameters, postgresql.recovery_conf, standby_cluster
	Now    string      `json:"now"`   // "" also where it is not set
	Wanted string      `json:"wanted"`
	Why    string      `json:"why"`
	Takes  string      `json:"takes"` // what makes it count
	Change bool        `json:"change"`
	Nodes  []NodeValue `json:"nodes,omitempty"` // where another value is in effect than Now

	key string // how the dynamic configuration writes its name
}

// NodeValue is what a node has in effect.
type NodeValue struct {
	Node  string `json:"node"`
	Value string `json:"value"`
}

// Own is a setting that a node has of its own, and that beats the dynamic configuration.
type Own struct {
	Node  string `json:"node"`
	Name  string `json:"name"`
	Value string `json:"value"`
	Where string `json:"where"`
	Fix   string `json:"fix"`
	Fine  bool   `json:"fine"`     // it does what is wanted
	Seems bool   `json:"inferred"` // from what is in effect: nobody has read the node's configuration from here
}

// Done says whether nothing is left to do.
func (c Changes) Done() bool {
	return len(c.Patch) == 0 && len(c.Restart) == 0 && len(c.Beaten()) == 0
}

// Beaten are the settings of nodes of their own that keep them from having what is wanted.
func (c Changes) Beaten() []Own {
	return slices.DeleteFunc(slices.Clone(c.Own), func(o Own) bool { return o.Fine })
}

// Waits says which nodes do not have yet in effect what the dynamic configuration tells them, though nothing of their own beats it and a restart is
// not what is missing. It is of use after a change.
func (c Changes) Waits() (nodes []string) {
	for _, s := range c.Settings {
		for _, n := range s.Nodes {
			own := slices.ContainsFunc(c.Own, func(o Own) bool { return o.Node == n.Node && o.Name == s.Name && !o.Seems })
			if s.Name != archiveMode && !own && !slices.Contains(nodes, n.Node) {
				nodes = append(nodes, n.Node)
			}
		}
	}
	return nodes
}

// Plan says what is to change.
func Plan(f Facts) Changes {
	c := Changes{Settings: []Setting{}, Own: []Own{}, Restart: []string{}, Warnings: []string{}, Notes: []string{}}
	for _, s := range settings(f) {
		s.key = key(section(f.Dynamic, strings.Split(s.Place, ".")...), s.Name)
		s.Change = s.Now != s.Wanted && !alike(s.Name, s.Now, s.Wanted)
		c.patch(s)
		s.Nodes = others(f, s)
		c.Settings = append(c.Settings, s)
	}
	for _, n := range f.Nodes {
		c.Own = append(c.Own, ownOf(f, n)...)
	}
	c.restarts(f)
	c.warn(f)
	return c
}

// settings are those that matter in this cluster, with what they are now.
func settings(f Facts) []Setting {
	const reload = "a reload, which Patroni does by itself"
	params := section(f.Dynamic, "postgresql", "parameters")
	now := func(name string) string { s, _ := text(params, name); return s }
	all := []Setting{
		{Name: archiveMode, Place: "postgresql.parameters", Now: now(archiveMode), Wanted: f.Want.Mode, Takes: "a restart of each node",
			Why: "each node keeps its WAL until the archive has it, also as a standby"},
		{Name: archiveCommand, Place: "postgresql.parameters", Now: now(archiveCommand), Wanted: f.Want.Archive, Takes: reload,
			Why: "PostgreSQL asks the sidecar beside it, which says yes when the archive has the file"},
	}
	if f.Want.Mode != "always" {
		all[0].Why = "the primary archives; a standby's WAL is shipped as far as it is still there, which is best effort (always is a guarantee)"
	}
	if v := now(archiveLibrary); v != "" {
		all = append(all, Setting{Name: archiveLibrary, Place: "postgresql.parameters", Now: v, Takes: reload, Why: "while it is set PostgreSQL does not call archive_command"})
	}
	takes := reload
	if f.before14() {
		takes = "a restart of standbys before PostgreSQL 14, which Patroni does by itself"
	}
	restore := Setting{Name: restoreCommand, Place: restorePlace(f), Wanted: f.Want.Restore, Takes: takes,
		Why: "standbys, pg_rewind and restores get from the archive what they lack"}
	restore.Now, _ = text(section(f.Dynamic, strings.Split(restore.Place, ".")...), restoreCommand)
	all = append(all, restore)
	if v, _ := text(standbyCluster(f), restoreCommand); v != "" {
		restore.Place, restore.Now, restore.Why = "standby_cluster", v, "in a standby cluster it beats the other one; walbaton asks the archives in restore_from too"
		all = append(all, restore)
	}
	return all
}

// alike says whether a value is as good as another one.
func alike(name, a, b string) bool {
	switch name {
	case archiveMode:
		return mode(a) == mode(b)
	case archiveCommand, restoreCommand:
		return same(a, b)
	}
	return a == b
}

// mode reads PostgreSQL's ways to write on and off; not set is off.
func mode(s string) string {
	switch s = strings.ToLower(s); s {
	case "true", "yes", "1":
		return "on"
	case "false", "no", "0", "":
		return "off"
	}
	return s
}

// recoverySettings are those that Patroni takes for settings of recovery.
var recoverySettings = []string{"restore_command", "archive_cleanup_command", "recovery_end_command", "recovery_min_apply_delay", "promote_trigger_file", "trigger_file",
	"primary_conninfo", "primary_slot_name", "standby_mode", "pause_at_recovery_target"}

func hasRecovery[T any](m map[string]T) bool {
	for name := range m {
		name = strings.ToLower(name)
		if strings.HasPrefix(name, "recovery_target") || slices.Contains(recoverySettings, name) {
			return true
		}
	}
	return false
}

// restorePlace says where restore_command belongs. Patroni moves settings of recovery from parameters to recovery_conf, and one of them there
// replaces the whole of recovery_conf: so what is already there would be lost if restore_command came into parameters.
func restorePlace(f Facts) string {
	const parameters, recoveryConf = "postgresql.parameters", "postgresql.recovery_conf"
	if hasRecovery(section(f.Dynamic, "postgresql", "parameters")) {
		return parameters
	}
	if len(section(f.Dynamic, "postgresql", "recovery_conf")) > 0 {
		return recoveryConf
	}
	for _, n := range f.Nodes {
		if n.Local != nil && len(n.Local.RecoveryConf) > 0 && !hasRecovery(n.Local.Parameters) {
			return recoveryConf
		}
	}
	return parameters
}

// standbyCluster is that section of the dynamic configuration, nil where this is none (is_standby_cluster in patroni/utils.py).
func standbyCluster(f Facts) map[string]any {
	s := section(f.Dynamic, "standby_cluster")
	for _, name := range []string{"host", "port", restoreCommand} {
		if v, _ := text(s, name); v != "" {
			return s
		}
	}
	return nil
}

// told is what the dynamic configuration tells nodes.
func told(f Facts, name string) string {
	if name == restoreCommand {
		if v, _ := text(standbyCluster(f), name); v != "" {
			return v
		}
		v, _ := text(section(f.Dynamic, strings.Split(restorePlace(f), ".")...), name)
		return v
	}
	v, _ := text(section(f.Dynamic, "postgresql", "parameters"), name)
	return v
}

func wanted(f Facts, name string) string {
	return map[string]string{archiveMode: f.Want.Mode, archiveCommand: f.Want.Archive, restoreCommand: f.Want.Restore}[name]
}

// patch adds what makes a setting as it should be.
func (c *Changes) patch(s Setting) {
	if !s.Change {
		return
	}
	if c.Patch == nil {
		c.Patch = map[string]any{}
	}
	m := c.Patch
	for _, p := range strings.Split(s.Place, ".") {
		next, ok := m[p].(map[string]any)
		if !ok {
			next = map[string]any{}
			m[p] = next
		}
		m = next
	}
	m[s.key] = s.Wanted
	if s.Wanted == "" {
		m[s.key] = nil
	}
}

// has is what a node has in effect of a setting, and whether that is known and matters: restore_command does only where there is recovery.
func (n Node) has(name string) (string, bool) {
	v, ok := n.Has[name]
	if !ok || name == restoreCommand && n.Leads && !n.Standby {
		return "", false
	}
	if v.InEffect == disabled {
		return v.InFile, true
	}
	return v.InEffect, true
}

// others are the nodes that have another value in effect than the dynamic configuration says.
func others(f Facts, s Setting) (out []NodeValue) {
	if s.Name == restoreCommand && s.Now != told(f, restoreCommand) {
		return nil // standby_cluster's is in effect
	}
	for _, n := range f.Nodes {
		if v, ok := n.has(s.Name); ok && !alike(s.Name, v, s.Now) {
			out = append(out, NodeValue{n.Name, v})
		}
	}
	return out
}

// ownOf is what a node has of its own.
func ownOf(f Facts, n Node) (out []Own) {
	add := func(name, value, where, fix string) {
		fine := alike(name, value, wanted(f, name))
		switch name {
		case archiveCommand:
			fine = fine || calls(value, "push")
		case restoreCommand:
			fine = fine || calls(value, "fetch")
		}
		out = append(out, Own{Node: n.Name, Name: name, Value: value, Where: where, Fix: fix, Fine: fine})
	}
	reload := fmt.Sprintf(", then: patronictl reload %s %s", f.Scope, n.Name)
	for _, name := range Names() {
		v := n.Has[name]
		auto := path.Base(v.File) == "postgresql.auto.conf"
		if auto {
			add(name, v.InFile, "ALTER SYSTEM", fmt.Sprintf(`on %s: psql -c "alter system reset %s" -c "select pg_reload_conf()"`, n.Name, name))
		}
		place := "postgresql.parameters"
		if name == restoreCommand {
			place = restorePlace(f)
		}
		if n.Local != nil {
			mine := n.Local.Parameters
			if place == "postgresql.recovery_conf" && !hasRecovery(mine) {
				mine = n.Local.RecoveryConf
			} else {
				place = "postgresql.parameters"
			}
			if value, ok := mine[key(mine, name)]; ok {
				add(name, value, n.Local.File, fmt.Sprintf("on %s: remove %s from %s in %s", n.Name, name, place, n.Local.File)+reload)
			}
			continue
		}
		// Patroni's postgresql.conf has what its two configurations say, together.
		if _, matters := n.has(name); matters && !auto && path.Base(v.File) == "postgresql.conf" && !alike(name, v.InFile, told(f, name)) && !alike(name, v.InFile, wanted(f, name)) {
			add(name, v.InFile, "its own Patroni configuration, as it seems", fmt.Sprintf("on %s: remove %s from section postgresql of Patroni's file", n.Name, name)+reload)
			out[len(out)-1].Seems = true
		}
	}
	return out
}

// restarts lists the nodes that need one for archive_mode: what counts is what is in effect, not Patroni's flag.
func (c *Changes) restarts(f Facts) {
	changes := slices.ContainsFunc(c.Settings, func(s Setting) bool { return s.Name == archiveMode && s.Change })
	leader := ""
	for _, n := range f.Nodes {
		beaten := slices.ContainsFunc(c.Own, func(o Own) bool { return o.Node == n.Name && o.Name == archiveMode && !o.Fine })
		v, known := n.has(archiveMode)
		need := known && !alike(archiveMode, v, f.Want.Mode) || !known && (n.Restart || changes)
		switch {
		case beaten || !need:
			if n.Restart && known {
				c.Notes = append(c.Notes, fmt.Sprintf("%s waits for a restart for other settings%s", n.Name, listed(n.Others)))
			}
			continue
		case len(n.Others) > 0:
			c.Notes = append(c.Notes, fmt.Sprintf("a restart of %s also brings what else waits for it%s", n.Name, listed(n.Others)))
		}
		if n.Leads {
			leader = n.Name
			continue
		}
		c.Restart = append(c.Restart, n.Name)
	}
	slices.Sort(c.Restart)
	if leader != "" {
		c.Restart = append(c.Restart, leader)
	}
}

func listed(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return ": " + strings.Join(names, ", ")
}

// warn says what a person should think of before.
func (c *Changes) warn(f Facts) {
	warn := func(format string, args ...any) { c.Warnings = append(c.Warnings, fmt.Sprintf(format, args...)) }
	if commands := c.ending(f); len(commands) > 0 {
		warn("the archive that this fills ends here, and the new one begins: %s\n  keep it with its backups until a base backup from now on was restored once. Both can run side by side for a while (docs/coming-from.md)",
			strings.Join(commands, "; "))
	}
	for _, s := range c.Settings {
		if s.Name == archiveCommand && s.Change && s.Now != "" && archivesNothing(s.Now) {
			warn("archive_command is %s: what it was called for is in no archive. The new archive begins here; take a base backup afterwards", s.Now)
		}
		if s.Name == restoreCommand && s.Change && f.before14() {
			warn("PostgreSQL before 14 reads restore_command at its start only: Patroni restarts every standby by itself, at about the same time")
		}
	}
	if f.Want.Mode == "on" {
		warn("archive_mode=on: what the archive lacks when the primary dies is healed from what is still in pg_wal elsewhere, which is best effort")
	}
	if !strings.Contains(f.Want.Archive, clientName) {
		warn("the archive_command that is asked for does not call %s push", clientName)
	}
	for _, n := range f.Nodes {
		if needsShell(f.Want.Archive) && withoutShell(n.Patroni) {
			warn("Patroni %s runs archive_command on a former primary without a shell, which %q needs: write it as sh -c '...'", n.Patroni, f.Want.Archive)
			break
		}
	}
	if f.Unwatched != "" {
		warn("whether sidecars are alive is not known: %s\n  where none is, PostgreSQL archives nothing, and keeps its WAL", f.Unwatched)
	}
	for _, n := range f.Nodes {
		if n.Sidecar == SidecarAbsent {
			warn("no sidecar is alive beside %s: its PostgreSQL archives nothing, and keeps its WAL, until one is", n.Name)
		}
		if n.Has == nil && n.Unasked != "" {
			c.Notes = append(c.Notes, fmt.Sprintf("what PostgreSQL of %s has in effect is not known here: %s", n.Name, n.Unasked))
		}
	}
}

// ending are the archive_commands in place whose archive gets nothing any more.
func (c *Changes) ending(f Facts) (commands []string) {
	add := func(s string) {
		if s != "" && !archivesNothing(s) && !calls(s, "push") && !strings.Contains(f.Want.Archive, s) && !alike(archiveCommand, s, f.Want.Archive) && !slices.Contains(commands, s) {
			commands = append(commands, s)
		}
	}
	for _, s := range c.Settings {
		if s.Name != archiveCommand {
			continue
		}
		add(s.Now)
		for _, n := range s.Nodes {
			add(n.Value)
		}
	}
	return commands
}

func (f Facts) before14() bool {
	return slices.ContainsFunc(f.Nodes, func(n Node) bool { return n.Version > 0 && n.Version < 140000 })
}

// withoutShell says whether this Patroni runs archive_command itself, and without a shell: 2.1.5 to 3.0.x.
func withoutShell(version string) bool {
	var n [3]int
	for i, s := range strings.SplitN(version, ".", 3) {
		n[i], _ = strconv.Atoi(s)
	}
	return slices.Compare(n[:], []int{2, 1, 5}) >= 0 && slices.Compare(n[:], []int{3, 1, 0}) < 0
}
