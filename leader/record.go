package leader

import (
	"encoding/json"
	"fmt"

	"github.com/walbaton/walbaton/leader/dcs"
)

// RecordVersion is the major version of the records that this code writes and understands.
// New optional fields do not change it.
const RecordVersion = 1

// Fork says that Timeline ended at the byte address End, and the next one began there.
type Fork struct {
	Timeline uint32 `json:"timeline"`
	End      uint64 `json:"end"`
}

// Role is what a sidecar's PostgreSQL is doing, in the record.
type Role string

const (
	RolePrimary Role = "primary"
	RoleReplica Role = "replica" // in recovery: a standby, also the leader of a standby cluster
	RoleStopped Role = "stopped" // stopped, starting or stopping
	RoleUnknown Role = "unknown"
)

// Receiver is what the walreceiver of a sidecar's PostgreSQL is doing, in the record; "" while PostgreSQL does not say.
type Receiver string

const (
	ReceiverStreams Receiver = "streaming"
	ReceiverNone    Receiver = "none" // the standby gets WAL from the archive at best, which has it then
)

// Record is what one sidecar tells the others, as JSON in the DCS. Its owner fills it and
// hands it to Elector.Announce, which sets the fields of the first block and adds to Tried.
//
// Every field is one that another node's decision, or an administrator's question, needs,
// and none of them moves while the cluster idles: the flush position, which does, is not
// here (the lag of rule 3 is read from Patroni's member keys).
type Record struct {
	Version int    `json:"version"`
	Member  string `json:"member"`
	Policy  Policy `json:"policy,omitempty"`  // what this sidecar is configured to; the leader's is in force, see View.Policy
	MaxLag  uint64 `json:"max_lag,omitempty"` // bytes, with Policy

	Software string `json:"software,omitempty"` // version of the sidecar
	Address  string `json:"address,omitempty"`  // host:port of its web page
	SystemID uint64 `json:"system_id,string"`   // of its server; 0 unknown, and then it is not eligible
	Tag      Tag    `json:"tag,omitempty"`      // the tag "walbaton" it knows for itself; counts while Patroni's member key is gone

	SegmentSize uint32   `json:"segment_size,omitempty"` // bytes
	Role        Role     `json:"role,omitempty"`
	Timeline    uint32   `json:"timeline,omitempty"`
	History     []Fork   `json:"history,omitempty"` // the ancestors of Timeline, oldest first, from its own server's files
	ArchiveMode string   `json:"archive_mode,omitempty"`
	Receiver    Receiver `json:"receiver,omitempty"` // of a standby

	Has    Ranges `json:"has,omitempty"`    // complete good segments in its pg_wal or keep_dir
	Misses Ranges `json:"misses,omitempty"` // of those, what the archive lacks ("missing" in DESIGN section 3)
	Store  bool   `json:"store"`            // its store answers: the last put succeeded or still moves bytes
	Silent int    `json:"silent,omitempty"` // of several archives that each are to have every file, how many do not answer it; Store then says that one does
	Tried  Ranges `json:"tried,omitempty"`  // of Has, what rule 2 does not count: it took the baton for that in vain a short while ago, or may not ship it before an administrator decides

	// Refused is what we took the baton for and then may not ship after all, as far as was tried: what lacks a witness, or lies on a timeline
	// that somebody else opens. It is not in the DCS.
	Refused Ranges `json:"-"`

	// Free is what is left on the disk of pg_wal, in bytes, for administrators: rounded down, and only while the store does
	// not answer or it is little; 0 otherwise.
	Free uint64 `json:"free,omitempty"`

	// Restart is the segment from which its server would go on after a restart, as archive_cleanup_command told it, or, on a primary, the last
	// checkpoint: what retention "standby-only" keeps. Nil while that is not known.
	Restart *Place `json:"restart,omitempty"`

	Holder *Holder `json:"holder,omitempty"` // only of the holder, and of the last one while the baton is free
}

// Holder is the part of a record that only the holder of the baton writes. Its owner sets
// Term and what follows the first block; a part with another Term than the present one is
// not published.
type Holder struct {
	Term uint64 `json:"term"`
	Rule Rule   `json:"rule,omitempty"` // by which it took the baton; set by the Elector

	Mark   []Mark `json:"mark,omitempty"`   // up to where the archive has the line
	Lacks  Ranges `json:"lacks,omitempty"`  // of the line, above the floor, below its flush position: absent from a listing made in this term, and no good copy here
	Errand Ranges `json:"errand,omitempty"` // what it took the baton for under rule 2 and still has to ship
	Alarm  string `json:"alarm,omitempty"`  // one clause, when something needs a human
}

// Mark says that the archive has every segment of Timeline below the number Next that lies
// on the line and not below the floor.
type Mark struct {
	Timeline uint32 `json:"timeline"`
	Next     uint64 `json:"next"`
}

// Place is one segment.
type Place struct {
	Timeline uint32 `json:"timeline"`
	No       uint64 `json:"no"`
}

// Readable says whether the record is of a version that this code understands. A sidecar
// whose record is not lives, and is never chosen.
func (r Record) Readable() bool { return r.Version == RecordVersion }

// maxRuns bounds each set of a record, so that a pg_wal full of holes cannot make a value
// that the DCS refuses. The oldest runs stay: they are in the greatest danger.
const maxRuns = 400

// Encode gives the record as JSON in printable ASCII: a byte of anything else below its
// scope demotes Patroni's primary.
func (r Record) Encode() (string, error) {
	r.Has, r.Misses, r.Tried = firstRuns(r.Has), firstRuns(r.Misses), firstRuns(r.Tried)
	if r.Holder != nil {
		h := *r.Holder
		h.Lacks, h.Errand = firstRuns(h.Lacks), firstRuns(h.Errand)
		r.Holder = &h
	}
	b, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("encode record: %w", err)
	}
	return dcs.ASCII(b), nil
}

func firstRuns(s Ranges) Ranges { return s[:min(len(s), maxRuns)] }

// ParseRecord reads what a sidecar wrote. Unknown fields are ignored. Of a newer major
// version only Version is filled, without an error; see Record.Readable.
func ParseRecord(text string) (Record, error) {
	var r Record
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		var head struct { // a newer version may give any other field another type
			Version int `json:"version"`
		}
		if json.Unmarshal([]byte(text), &head) != nil || head.Version == RecordVersion {
			return Record{}, fmt.Errorf("parse record: %w", err)
		}
		r.Version = head.Version
	}
	if r.Version != RecordVersion {
		return Record{Version: r.Version}, nil
	}
	return r, nil
}
