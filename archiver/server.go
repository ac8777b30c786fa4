package archiver

import "github.com/walbaton/walbaton/archiver/wal"

// ServerState is what the PostgreSQL beside this sidecar is doing.
type ServerState string

const (
	ServerUnknown  ServerState = "unknown"  // neither SQL nor the files say
	ServerStopped  ServerState = "stopped"  // no postmaster runs on the data directory
	ServerStarting ServerState = "starting" // a postmaster runs, and does not accept connections yet
	ServerPrimary  ServerState = "primary"
	ServerStandby  ServerState = "standby" // in recovery, standby or point-in-time
	ServerStopping ServerState = "stopping"
)

// Running says whether a postmaster works on the data directory.
func (s ServerState) Running() bool {
	switch s {
	case ServerStarting, ServerPrimary, ServerStandby, ServerStopping:
		return true
	}
	return false
}

// Server is one reading of the local PostgreSQL. SQL fills all of it; without SQL
// (PostgreSQL stopped, starting, or hung) pg_control and the files fill what they can.
type Server struct {
	State    ServerState
	SQL      bool // the reading comes from SQL, not from files alone
	SystemID uint64
	Major    int // 15 for PostgreSQL 15.x
	Version  int // server_version_num, 0 when SQL did not say

	// WasPrimary says that its newest WAL is its own: it is a primary, or pg_control says that it was one when it was stopped or crashed.
	WasPrimary bool

	SegmentSize wal.SegmentSize
	// Timeline that the server writes (primary), receives or replays (standby), or was on last (stopped).
	Timeline wal.Timeline
	// Flush is the end of the WAL that is durable in this pg_wal: flushed on a primary, received
	// and flushed on a standby; without SQL the checkpoint or the minimum recovery point.
	Flush wal.LSN
	// Redo is where replay from the last checkpoint begins, or on a standby from the last restartpoint; 0 when pg_control cannot be read.
	Redo        wal.LSN
	ArchiveMode string // on, off, always; empty when nothing said it

	Receiver Receiver
}

// Receiver is the walreceiver of a standby. The zero value means that none runs.
type Receiver struct {
	Streaming bool
	Timeline  wal.Timeline
	Host      string // sender_host of pg_stat_wal_receiver: an address, a name or a socket folder
	Port      int
}
