package archiver

import (
	"time"

	"github.com/walbaton/walbaton/archiver/wal"
)

// Presence is what the archive says about one name.
type Presence uint8

const (
	NotAsked  Presence = iota // nothing was asked, or the store did not answer
	Absent                    // the archive answered, and has no such file
	Same                      // it has the file, with our content
	Different                 // it has the file, with another content
)

// Contrast is what comparing two different copies of a segment found.
type Contrast uint8

const (
	NotCompared   Contrast = iota
	TheirsHolds            // the records are equal, or ours is damaged, or ours is a prefix: theirs is enough
	TheirsDamaged          // the archive's copy is damaged, and ours is whole
	BothWhole              // two whole segments of one name: two primaries wrote one timeline
	TheirsSealed           // ours ends early, and theirs is encrypted: nobody here can tell whether ours is a part of it
)

// Facts are all that the answer to a push depends on. Gathering them needs disks, networks and
// clocks; judging them needs none.
type Facts struct {
	Name wal.Name

	NoArchive  string // why nothing can be asked or put yet; empty when the archive is open
	BelowFloor bool
	Archive    Presence
	Contrast   Contrast // of Different segments

	State wal.State // of our copy, once it was read
	Read  bool      // our copy was read, State and End hold
	End   wal.LSN   // where our good records end

	Place     Place
	Fresh     bool    // Place comes from a read of the leader made for this call
	OnHistory bool    // the line knows the timeline of this name, and by the same forks as ours: for histories
	Fork      wal.LSN // where the line left this timeline; 0 when it was never on it
	ChildKept bool    // the archive has the .partial, or the first segment of the child

	Resolved Resolved // administrators' decisions about our very copy

	Server ServerState
	Permit bool // this node may put it now (section 6)
	Ours   bool // this node has the baton

	Waited    time.Duration // since this call began
	Stopped   time.Duration // since the first of this series of calls that found PostgreSQL stopped
	StoreIdle time.Duration // since the archive took a file, counted from when PostgreSQL began to stop
	Limits    Limits
}

// Limits are the patience of a push.
type Limits struct {
	PushWait     time.Duration
	ShutdownWait time.Duration
	StoppedWait  time.Duration
}

// Act is what to do before a push is answered.
type Act uint8

const (
	Wait   Act = iota // look again when something changed; Code is the answer at push_wait
	Answer            // answer Code now
	Put               // put the file, then look again
	Orphan            // copy the file to orphans/, then answer Code
	Keep              // copy the file to keep_dir unless the leader has it, then answer Code
)

// Verdict is what the first row that fits says.
type Verdict struct {
	Row   string // of DESIGN section 7
	Act   Act
	Code  int
	Alarm bool
	Why   string // one clause for the log and for PostgreSQL's, empty when Code is 0
}

// disputed says that an administrator's decision could change the answer.
func (v Verdict) disputed() bool { return v.Alarm || v.Row == "8" && v.Code != 0 }

// Judge goes through the table of DESIGN section 7 from the top; the first row that fits answers.
// When the store is silent (Archive is NotAsked), rows 2 to 6 do not fit.
func Judge(f Facts) Verdict {
	for _, rows := range []func(Facts) (Verdict, bool){judgeStored, judgeSmall, judgeHistory, judgeBranch, judgeConflict, judgeOurs, judgeShip} {
		if v, ok := rows(f); ok {
			if v.Act == Wait && f.Waited >= f.Limits.PushWait {
				v.Act = Answer
			}
			return v
		}
	}
	return Verdict{Row: "13", Act: Answer, Code: 1, Why: "nothing is known about this file"}
}

// judgeStored has rows 1 and 2: nothing is left to do.
func judgeStored(f Facts) (Verdict, bool) {
	switch {
	case f.BelowFloor:
		return Verdict{Row: "1", Act: Answer}, true
	case f.Archive == Same:
		return Verdict{Row: "2", Act: Answer}, true
	}
	return Verdict{}, false
}

// judgeSmall has row 3: files that exist on one node only, which that node puts itself.
func judgeSmall(f Facts) (Verdict, bool) {
	if f.Name.Kind != wal.KindBackup && f.Name.Kind != wal.KindPartial {
		return Verdict{}, false
	}
	switch {
	case f.Archive == Different:
		return Verdict{Row: "3", Act: Orphan}, true
	case f.Archive == Absent && sound(f):
		return Verdict{Row: "3", Act: Put, Code: 1, Why: "not stored yet"}, true
	}
	return Verdict{}, false
}

// judgeHistory has row 4.
func judgeHistory(f Facts) (Verdict, bool) {
	if f.Name.Kind != wal.KindHistory {
		return Verdict{}, false
	}
	switch {
	case f.Archive == Absent && sound(f) && f.Permit:
		return Verdict{Row: "4a", Act: Put, Code: 1, Why: "not stored yet"}, true
	case f.Archive == Different && f.Fresh && !f.OnHistory && f.Place != PlaceUnknown:
		return Verdict{Row: "4b", Act: Orphan}, true
	case f.Archive == Different && f.Resolved.KeepArchive:
		return Verdict{Row: "4c", Act: Orphan}, true
	case f.Archive == Different && f.OnHistory:
		return Verdict{Row: "4c", Act: Answer, Code: 1, Alarm: true,
			Why: "the archive has another history of this timeline, and the cluster is on it"}, true
	}
	return Verdict{}, false
}

// judgeBranch has row 5: WAL that the cluster's line has left.
func judgeBranch(f Facts) (Verdict, bool) {
	if f.Name.Kind != wal.KindSegment || f.Place != OnBranch || !f.Fresh || f.Archive == NotAsked {
		return Verdict{}, false
	}
	if f.Read && f.Fork != 0 && f.End <= f.Fork && f.ChildKept {
		return Verdict{Row: "5", Act: Answer}, true
	}
	return Verdict{Row: "5", Act: Orphan}, true
}

// judgeConflict has row 6: one name, two contents.
func judgeConflict(f Facts) (Verdict, bool) {
	if f.Name.Kind != wal.KindSegment || f.Archive != Different {
		return Verdict{}, false
	}
	switch f.Contrast {
	case TheirsHolds:
		return Verdict{Row: "6a", Act: Answer}, true
	case TheirsDamaged:
		return conflict(f, "6b", "the archive's copy is damaged, ours is whole and kept in orphans/"), true
	case BothWhole:
		return conflict(f, "6c", "the archive has another segment of this name, ours is kept in orphans/"), true
	}
	return Verdict{}, false
}

// conflict needs a person, and ends with that person's decision. Ours is kept either way.
func conflict(f Facts, row, why string) Verdict {
	if f.Resolved.KeepArchive {
		return Verdict{Row: row, Act: Orphan}
	}
	return Verdict{Row: row, Act: Orphan, Code: 1, Alarm: true, Why: why}
}

// judgeOurs has rows 7 to 9: PostgreSQL is stopped, or our copy is not what its name says.
func judgeOurs(f Facts) (Verdict, bool) {
	switch {
	case f.Server == ServerStopped && f.Stopped >= f.Limits.StoppedWait:
		return Verdict{Row: "7", Act: Keep, Code: 1, Why: "PostgreSQL is stopped, and the file is not known to be stored"}, true
	case sound(f):
		return Verdict{}, false
	case f.State == wal.Cut && f.Place == OnBranch && f.Archive == NotAsked:
		return Verdict{}, false // a fork explains it, and the store, which is silent, has to be asked
	}
	v := Verdict{Row: "9", Act: Answer, Code: 1, Alarm: true, Why: "our copy is damaged"}
	if f.State == wal.Cut && f.Name.Kind == wal.KindSegment {
		v = Verdict{Row: "8", Act: Wait, Code: 1, Why: "its records end early, and no timeline switch explains it yet"}
		if f.Archive == Different && f.Contrast == TheirsSealed {
			v.Why = "its records end early, and the archive's copy, another one, is encrypted: nobody here can tell whether ours is a part of it"
		}
		if stopsInVain(f) {
			v.Act = Answer
		}
	}
	if f.Archive == Different && f.Resolved.KeepArchive {
		v = Verdict{Row: v.Row, Act: Orphan}
	}
	return v, true
}

// judgeShip has rows 10 to 13: the file has still to be shipped, by us or by another.
func judgeShip(f Facts) (Verdict, bool) {
	switch {
	case stopsInVain(f):
		return Verdict{Row: "10", Act: Answer, Code: 1, Why: "PostgreSQL is stopping, and the archive takes no files"}, true
	case f.NoArchive != "":
		return Verdict{Row: "13", Act: Wait, Code: 1, Why: f.NoArchive}, true
	case f.Name.Kind != wal.KindSegment && f.Name.Kind != wal.KindHistory:
		return Verdict{Row: "3", Act: Wait, Code: 1, Why: "not stored yet"}, true
	case f.Permit:
		return Verdict{Row: "11", Act: Wait, Code: 1, Why: "not stored yet"}, true
	case f.Name.Kind == wal.KindHistory:
		return Verdict{Row: "4a", Act: Wait, Code: 1, Why: "another node has to open this timeline first"}, true
	}
	v := Verdict{Row: "12", Act: Wait, Code: 1, Why: "another node has to ship it, and it is not known to be in the archive yet"}
	if f.Archive == Absent {
		v.Why = "another node has to ship it, and the archive does not have it yet"
	}
	return v, true
}

// stopsInVain says that PostgreSQL waits for its archiver to stop, and that this helps nobody any more.
func stopsInVain(f Facts) bool {
	return f.Server == ServerStopping && f.StoreIdle >= f.Limits.ShutdownWait
}

// sound says whether our copy may be stored under its name (promise P3).
func sound(f Facts) bool {
	if !f.Read || f.Resolved.Accept && f.Archive != Different {
		return true // its reading is part of shipping it; or an administrator accepted it by name
	}
	return f.State == wal.Complete || f.State == wal.Cut && f.Name.Kind == wal.KindPartial
}
