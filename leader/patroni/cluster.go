package patroni

import (
	"fmt"
	"slices"
	"time"
)

// Cluster is what Patroni wrote below one scope. It is a view, not the truth: LSNs are up
// to one loop old, the leader key comes before the node is writable, and in a standby
// cluster the leader is a standby.
type Cluster struct {
	SystemID       uint64            // key "initialize"; 0 before the bootstrap is done
	Leader         string            // key "leader"; "" when nobody holds it
	LeaderToken    uint64            // unique for each creation of the leader key; 0 without one
	Members        map[string]Member // keys "members/<name>"
	TTL            time.Duration     // of Patroni's leader lock; from "config", default 30 s
	LoopWait       time.Duration     // default 10 s
	RetryTimeout   time.Duration     // default 10 s
	Paused         bool              // maintenance mode
	StandbyCluster bool              // the leader follows another cluster
	Failsafe       bool              // failsafe_mode is on
	History        []HistoryEntry    // key "history", oldest first; written after a promotion, with delay
	Optime         uint64            // the leader's LSN in "status" or the older "optime/leader"; up to one loop old
	Warnings       []string          // what could not be understood, one clause each, sorted
}

// Member is one Patroni node. Fields that its Patroni does not publish are zero.
type Member struct {
	Name             string
	ConnURL          string // postgres://host:port/dbname, without credentials
	Host             string // from ConnURL
	Port             int    // from ConnURL, default 5432
	APIURL           string // ends with /patroni
	State            string // Patroni's words: "running", "starting", "stopped", "crashed", ...
	Role             string // primary, replica, standby_leader, promoted, demoted, uninitialized; "master" reads as primary
	Timeline         uint32
	LSN              uint64         // xlog_location: write or flush LSN of a primary, the higher of received and replayed of a replica
	ReceiveLSN       uint64         // Patroni 4.1, replicas; may be far below ReplayLSN after a restart
	ReplayLSN        uint64         // Patroni 4.1, replicas
	Version          string         // of Patroni
	ReplicationState string         // "streaming", "in archive recovery"; "" on a primary, without one to stream from, before 3.0.4
	Tags             map[string]any // numbers are json.Number
	Paused           bool
	PendingRestart   bool
}

// SaysReplication says whether this member's Patroni publishes what its replica does: since 3.0.4 a
// replica that streams, or reads an archive, has the key replication_state, and one that does neither has none
// (Patroni's release notes of 3.0.4; the captured member keys of 3.3 to 4.1 without a primary).
func (m Member) SaysReplication() bool {
	var major, minor, patch int
	if n, _ := fmt.Sscanf(m.Version, "%d.%d.%d", &major, &minor, &patch); n < 2 {
		return false
	}
	return slices.Compare([]int{major, minor, patch}, []int{3, 0, 4}) >= 0
}

// HistoryEntry says that Timeline ended at LSN and the next one began there.
type HistoryEntry struct {
	Timeline uint32
	LSN      uint64
	Reason   string
	Time     time.Time // zero when not recorded
	Leader   string    // the new leader; "" before Patroni 2.1.1
}
