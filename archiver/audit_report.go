package archiver

import (
	"github.com/walbaton/walbaton/archiver/wal"
)

// Kinds of problems that an audit finds.
const (
	ProblemHole           = "hole"             // segments are missing inside a timeline
	ProblemForkHole       = "hole-at-fork"     // segments are missing where one timeline leads to the next
	ProblemMissingHistory = "missing-timeline" // no history of a timeline number: recovery stops looking there
	ProblemForeignHistory = "foreign-history"  // a history that others, or the segments, contradict
	ProblemHeader         = "damaged-header"   // the first bytes of an object are none of ours
	ProblemSystemID       = "wrong-system-id"  // an object of another cluster
	ProblemSwapped        = "swapped"          // an object that holds another file
	ProblemDamaged        = "damaged"          // the content is not what was sealed: changed, cut, longer
	ProblemWAL            = "bad-wal"          // the content is what was sealed, and it is no good WAL
)

// maxProblems and maxOrphans bound a report; the counts go on.
const (
	maxProblems = 1000
	maxOrphans  = 1000
)

// Audit is what `verify` found. Names are those of pg_wal, LSNs PostgreSQL's text.
type Audit struct {
	Archive     string          `json:"archive"`
	Scope       string          `json:"scope"`
	SystemID    uint64          `json:"system_identifier,string"`
	SegmentSize wal.SegmentSize `json:"segment_size"` // bytes
	Deep        bool            `json:"deep"`
	NotChecked  string          `json:"not_checked,omitempty"` // what this audit could not see
	Since       string          `json:"since,omitempty"`       // the LSN below which nothing was looked at
	Whole       bool            `json:"whole"`                 // no problem was found, not even an acknowledged one

	Floors    []Floor         `json:"floors"`
	Line      []wal.Timeline  `json:"line"`     // oldest first
	Frontier  string          `json:"frontier"` // the LSN up to which the line has no hole, from its floor on
	Timelines []AuditTimeline `json:"timelines"`

	Windows []Window `json:"-"` // the newest parts of the line without a hole, where they were asked for

	Problems     []Problem `json:"problems"`           // the first thousand
	ProblemCount int       `json:"problem_count"`      // all of them
	Acknowledged int       `json:"acknowledged_count"` // of those, holes that somebody knows of and gave a reason for
	Notes        []string  `json:"notes"`              // worth knowing, and no problem

	Count       AuditCount `json:"count"`
	Orphans     []string   `json:"orphans"` // the first thousand, as member/name-digest
	OrphanBytes int64      `json:"orphan_bytes"`
}

// AuditCount counts objects.
type AuditCount struct {
	Segments   int   `json:"segments"`
	Partials   int   `json:"partials"`
	Histories  int   `json:"histories"`
	Backups    int   `json:"backups"`
	Orphans    int   `json:"orphans"`
	Bytes      int64 `json:"bytes"`      // sealed, without orphans
	Opened     int   `json:"opened"`     // objects read to their end
	Remembered int   `json:"remembered"` // objects that an interrupted audit had found good
	Encrypted  int   `json:"encrypted"`
	Locked     int   `json:"locked"` // of these: no identity here opened them, where contents were to be checked
	Missing    int   `json:"missing_segments"`
	Known      int   `json:"acknowledged_segments"` // of those, in acknowledged holes
}

// AuditTimeline is one timeline.
type AuditTimeline struct {
	Timeline wal.Timeline `json:"timeline"`
	Parent   wal.Timeline `json:"parent,omitempty"`
	Fork     string       `json:"fork,omitempty"` // the LSN where it left its parent
	OnLine   bool         `json:"on_line"`
	History  bool         `json:"history"` // its history file is there
	First    string       `json:"first,omitempty"`
	Last     string       `json:"last,omitempty"`
	Begin    string       `json:"begin,omitempty"` // LSN of the first byte, and the one after the last
	End      string       `json:"end,omitempty"`
	Segments int          `json:"segments"`
	Missing  int          `json:"missing_segments"`
	Partials int          `json:"partials"`
	Backups  int          `json:"backups"`
	Bytes    int64        `json:"bytes"`
}

// Problem is one thing that is not as it should be.
type Problem struct {
	Kind     string       `json:"kind"`
	Name     string       `json:"name"` // of the file; the first one of a hole
	Timeline wal.Timeline `json:"timeline"`
	From     string       `json:"from,omitempty"` // first and last name of a hole
	To       string       `json:"to,omitempty"`
	Count    uint64       `json:"count,omitempty"` // how many files a hole lacks
	Why      string       `json:"why"`
	Hint     string       `json:"hint,omitempty"` // what can be done

	Acknowledged *Acknowledgment `json:"acknowledged,omitempty"` // who knows of this hole, and why it is as it is
}

// Open counts the problems that nobody has acknowledged.
func (r *Audit) Open() int { return r.ProblemCount - r.Acknowledged }
