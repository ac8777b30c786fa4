package rehearsal

import (
	"math"
	"time"

	"github.com/walbaton/walbaton/archiver/wal"
)

// Verdict is what came of a rehearsal.
type Verdict string

const (
	Passed Verdict = "passed"
	Failed Verdict = "failed"  // it took place, and something was not in order
	NotRun Verdict = "not run" // it did not take place, or not to its end: nothing is said about the cluster
)

// Seconds are counted from the moment when the change was asked for, where they are a point in time. They have milliseconds.
type Seconds float64

func seconds(d time.Duration) Seconds { return Seconds(math.Round(d.Seconds()*1000) / 1000) }

// Result is what a rehearsal found.
type Result struct {
	Verdict  Verdict   `json:"verdict"`
	Why      []string  `json:"why"` // what failed, or why it was not run
	Version  string    `json:"version"`
	Cluster  string    `json:"cluster"`
	SystemID uint64    `json:"system_identifier,string"`
	Archive  string    `json:"archive"`
	Began    time.Time `json:"began"`
	Ended    time.Time `json:"ended"`
	Command  string    `json:"kill_command,omitempty"` // what took the primary away; "": Patroni was asked to switch over
	Wanted   int       `json:"rounds_wanted"`
	Rounds   []Round   `json:"rounds"`
	Restore  *Restore  `json:"restore,omitempty"`
	Left     []string  `json:"left_behind"` // what could not be removed, and how to do it
}

// Round is one change of the primary.
type Round struct {
	No      int       `json:"round"`
	Verdict Verdict   `json:"verdict"`
	Why     []string  `json:"why"`
	Notes   []string  `json:"notes"`    // worth knowing, and no failure
	AskedAt time.Time `json:"asked_at"` // when the change was asked for: second 0

	ByCommand   bool         `json:"by_command"` // a command took the primary away; otherwise Patroni was asked
	From        string       `json:"from"`       // the primary before, and after
	To          string       `json:"to"`
	OldTimeline wal.Timeline `json:"old_timeline"`
	NewTimeline wal.Timeline `json:"new_timeline"`

	Promoted     Seconds `json:"promoted"`       // when Patroni said first that To is a running primary
	NoWritesFrom Seconds `json:"no_writes_from"` // the last row that was acknowledged before the longest gap, and the first one after it
	NoWritesTo   Seconds `json:"no_writes_to"`
	Holder       string  `json:"holder"`        // who held the baton when the first segment after the change came
	FirstFile    string  `json:"first_segment"` // that segment
	Shipped      Seconds `json:"shipped"`       // when it reached the archive
	Back         Seconds `json:"back"`          // when all members ran on the new timeline; 0: they did not

	Rows      Rows     `json:"rows"`
	Timelines []Line   `json:"timelines"`
	Twice     []string `json:"archived_twice"` // files of the archive that were replaced by others, or went
	Orphans   []string `json:"orphans"`        // new ones, as member/name-digest

	Trace Trace `json:"trace"`
}

// NoWrites is the time without writes: the longest one between two acknowledged rows around the change.
func (r Round) NoWrites() Seconds { return r.NoWritesTo - r.NoWritesFrom }

// ShippedAfter is the time from the promotion until the first segment after it was in the archive.
func (r Round) ShippedAfter() Seconds { return r.Shipped - r.Promoted }

// Rows are those of one round.
type Rows struct {
	Acknowledged int `json:"acknowledged"`
	Doubtful     int `json:"unacknowledged"`         // sent, and never acknowledged: PostgreSQL may have them or not
	DoubtfulKept int `json:"unacknowledged_present"` // of those, the ones it has
	Lost         int `json:"lost"`                   // acknowledged, and not on the new primary
	Changed      int `json:"changed"`                // with other content than was written
	Twice        int `json:"twice"`                  // that are there more than once
}

// Line is one timeline of a round: what the archive has of it, since the round began.
type Line struct {
	Timeline wal.Timeline `json:"timeline"`
	First    string       `json:"first"` // segments that belong to the line
	Last     string       `json:"last"`
	Segments int          `json:"segments"`
	Missing  []string     `json:"missing"` // segments, and the history file
}

// Restore is what a server has that was restored from the archive.
type Restore struct {
	Target  string  `json:"target"`      // the name of the restore point
	Backup  Seconds `json:"base_backup"` // how long it took
	Took    Seconds `json:"recovery"`
	Rows    int     `json:"rows"`    // compared
	Missing int     `json:"missing"` // rows that the primary has, and the restored server has not
	Extra   int     `json:"extra"`
	Changed int     `json:"changed"`
	Failed  string  `json:"failed,omitempty"` // why the recovery did not come to its end
}

// Trace is what was seen, for the picture. All points in time are seconds from when the change was asked for.
type Trace struct {
	From      Seconds   `json:"from"`
	To        Seconds   `json:"to"`
	Members   []string  `json:"members"`
	Primaries []Span    `json:"primaries"` // who was a running primary, by its Patroni
	Batons    []Span    `json:"batons"`    // who held the baton, by its sidecar
	Files     []File    `json:"files"`     // as they reached the archive
	Writes    []Bucket  `json:"writes"`
	Failures  []Failure `json:"failures"` // writes that failed, the first of each kind in a row
}

// Span is a time during which one member was something.
type Span struct {
	Who      string       `json:"who"`
	From     Seconds      `json:"from"`
	To       Seconds      `json:"to"`
	Timeline wal.Timeline `json:"timeline,omitempty"` // of a primary
	Term     uint64       `json:"term,omitempty"`     // of the baton
}

// File is a file that reached the archive while it was watched.
type File struct {
	Name     string       `json:"name"`
	Timeline wal.Timeline `json:"timeline"`
	Ended    *Seconds     `json:"ended,omitempty"` // when the segment was ended, where this rehearsal did that
	Arrived  Seconds      `json:"arrived"`
}

// Bucket counts the rows of a quarter of a second, by when they were sent.
type Bucket struct {
	At           Seconds `json:"at"`
	Acknowledged int     `json:"acknowledged"`
	Failed       int     `json:"failed"`
}

// bucket is its width.
const bucket = 250 * time.Millisecond

// Failure is why writes failed, from a moment on.
type Failure struct {
	At    Seconds `json:"at"`
	Why   string  `json:"why"`
	Count int     `json:"count"`
}
