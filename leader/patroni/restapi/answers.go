package restapi

import (
	"encoding/json"
	"maps"
	"slices"
)

// Node is what a member says of itself: GET /patroni.
type Node struct {
	State         string         `json:"state"` // Patroni's word: running, stopped, starting ...
	Role          string         `json:"role"`  // primary, replica, standby_leader ...
	ServerVersion int            `json:"server_version"`
	Timeline      uint32         `json:"timeline"`
	SystemID      string         `json:"database_system_identifier"`
	Unlocked      bool           `json:"cluster_unlocked"` // no member has the leader key
	Failsafe      bool           `json:"failsafe_mode_is_active"`
	Paused        bool           `json:"pause"`
	Pending       bool           `json:"pending_restart"`
	Reasons       map[string]any `json:"pending_restart_reason"` // setting: old and new value; since 3.3
	Replication   []Walsender    `json:"replication"`            // who follows it; nobody: absent
	XLog          struct {
		Location uint64 `json:"location"` // of a primary
		Received uint64 `json:"received_location"`
		Replayed uint64 `json:"replayed_location"`
	} `json:"xlog"`
	Patroni struct {
		Version string `json:"version"`
		Scope   string `json:"scope"`
		Name    string `json:"name"` // since 3.2
	} `json:"patroni"`
}

// Walsender is one connection that a server streams over, of pg_stat_replication.
type Walsender struct {
	Name  string `json:"application_name"` // of a member: its name
	State string `json:"state"`            // streaming, catchup, startup, backup
}

// Streams says whether this member streams to another one.
func (n Node) Streams(to string) bool {
	return slices.ContainsFunc(n.Replication, func(w Walsender) bool { return w.Name == to && w.State == "streaming" })
}

// Running says whether PostgreSQL runs.
func (n Node) Running() bool { return n.State == "running" }

// PendingSettings are the settings that a restart is pending for, as far as Patroni says (3.3 and later).
func (n Node) PendingSettings() []string { return slices.Sorted(maps.Keys(n.Reasons)) }

// Cluster is GET /cluster.
type Cluster struct {
	Members   []Member       `json:"members"`
	Paused    bool           `json:"pause"`
	Scheduled map[string]any `json:"scheduled_switchover"` // nil: none
}

// Member is one of the members, as the DCS has it.
type Member struct {
	Name     string          `json:"name"`
	Role     string          `json:"role"`    // leader, standby_leader, sync_standby, quorum_standby, replica
	State    string          `json:"state"`   // of a replica since 3.0.4 streaming, or in archive recovery; else running ...
	URL      string          `json:"api_url"` // http://host:port; "" where the member did not say
	Host     string          `json:"host"`    // of its PostgreSQL
	Port     int             `json:"port"`
	Timeline uint32          `json:"timeline"`
	Lag      any             `json:"lag"` // bytes behind the leader, or "unknown"
	Pending  bool            `json:"pending_restart"`
	Tags     json.RawMessage `json:"tags"`
}

// Leads says whether the member has the leader key.
func (m Member) Leads() bool { return m.Role == "leader" || m.Role == "standby_leader" }

// Healthy says whether its PostgreSQL runs, and as a replica follows.
func (m Member) Healthy() bool { return m.State == "running" || m.State == "streaming" }

// Leader gives the member with the leader key.
func (c Cluster) Leader() (Member, bool) {
	at := slices.IndexFunc(c.Members, Member.Leads)
	if at < 0 {
		return Member{}, false
	}
	return c.Members[at], true
}

// normalRole reads the word of Patroni before 4.0.
func normalRole(r string) string {
	if r == "master" {
		return "primary"
	}
	return r
}
