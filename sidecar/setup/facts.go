// Package setup plans how a Patroni cluster comes to archive with walbaton: which settings of Patroni's dynamic configuration differ from what
// they should be, what nodes have of their own that beats it, and which nodes need a restart.
//
//	changes := setup.Plan(facts)
//
// It is pure: facts in, changes out. Package main gathers the facts, shows the changes, and makes them through Patroni's REST API.
// Where settings live, and which place beats which, is Patroni's (patroni/postgresql/config.py of 3.0 to 4.1).
package setup

import (
	"fmt"
	"strings"
)

// The settings that setup looks after.
const (
	archiveMode    = "archive_mode"
	archiveCommand = "archive_command"
	archiveLibrary = "archive_library" // since PostgreSQL 15; where it is set, archive_command is not called
	restoreCommand = "restore_command"
)

// Names are the settings that facts are needed of.
func Names() []string {
	return []string{archiveMode, archiveCommand, archiveLibrary, restoreCommand}
}

// Want is what the settings should be.
type Want struct {
	Mode    string // archive_mode: always or on
	Archive string // archive_command
	Restore string // restore_command
}

// Facts are all that a plan is made of.
type Facts struct {
	Scope   string // Patroni's name of the cluster
	Want    Want
	Dynamic map[string]any // Patroni's dynamic configuration
	Paused  bool           // Patroni is in maintenance mode
	Nodes   []Node

	Unwatched string // why nobody knows whether sidecars are alive; "": it is known, or there is nobody to ask (dcs.kind rest)
}

// Node is one member.
type Node struct {
	Name    string
	Leads   bool   // it has the leader key
	Standby bool   // the leader of a standby cluster
	State   string // of its PostgreSQL, in Patroni's word, or why it could not be asked
	Running bool
	Streams bool // from another member
	Patroni string
	Version int // of PostgreSQL, as server_version_num; 0: not known

	Has     map[string]Value // what its PostgreSQL has, by setting; nil: nobody could ask
	Unasked string           // why
	Local   *Local           // what its own Patroni configuration has; nil: it cannot be read from here

	Restart bool     // Patroni says that a restart is pending
	Others  []string // settings besides those of this package that wait for it, as far as known

	Sidecar Sidecar
}

// Value is what a PostgreSQL has of a setting.
type Value struct {
	InEffect string
	File     string // of its configuration that says it last; "": none does
	InFile   string // what it says there
}

// Local is what a node's own Patroni configuration says. It beats the dynamic configuration.
type Local struct {
	File         string
	Parameters   map[string]string // postgresql.parameters
	RecoveryConf map[string]string // postgresql.recovery_conf
}

// Sidecar is what is known of the sidecar beside a node.
type Sidecar int

// What is known of a sidecar.
const (
	SidecarUnknown Sidecar = iota
	SidecarAbsent
	SidecarAlive
)

// Leader gives the member with the leader key, or false.
func (f Facts) Leader() (Node, bool) {
	for _, n := range f.Nodes {
		if n.Leads {
			return n, true
		}
	}
	return Node{}, false
}

// Unhealthy says what keeps PostgreSQL from being restarted node by node, one sentence each: nothing when all is well.
func Unhealthy(f Facts) (why []string) {
	if f.Paused {
		why = append(why, "Patroni is paused (patronictl resume ends that)")
	}
	if f.Unwatched != "" {
		why = append(why, "whether sidecars are alive is not known: "+f.Unwatched)
	}
	if _, ok := f.Leader(); !ok {
		why = append(why, "no member is the leader")
	}
	for _, n := range f.Nodes {
		switch {
		case !n.Running:
			why = append(why, fmt.Sprintf("PostgreSQL of %s does not run: %s", n.Name, n.State))
		case !n.Leads && !n.Streams:
			why = append(why, n.Name+" does not stream from another member")
		}
		if n.Sidecar == SidecarAbsent {
			why = append(why, "no sidecar is alive beside "+n.Name)
		}
	}
	return why
}

// section gives a map within a map, by path.
func section(m map[string]any, path ...string) map[string]any {
	for _, p := range path {
		m, _ = m[key(m, p)].(map[string]any)
	}
	return m
}

// key gives the way in which m writes a name: Patroni and PostgreSQL do not tell upper and lower case apart in the names of settings.
func key[T any](m map[string]T, name string) string {
	if _, ok := m[name]; ok {
		return name
	}
	for k := range m {
		if strings.EqualFold(k, name) {
			return k
		}
	}
	return name
}

// text gives a value as PostgreSQL would show it, and whether there is one.
func text(m map[string]any, name string) (string, bool) {
	switch v := m[key(m, name)].(type) {
	case nil, map[string]any, []any:
		return "", false
	case string:
		return v, true
	case bool: // YAML's on and off
		if v {
			return "on", true
		}
		return "off", true
	default:
		return fmt.Sprint(v), true
	}
}
