package monitoring

import (
	"strings"
	"time"
)

// The steps of the drill that is recorded, in order.
const (
	StepOrder    = "all is in order"
	StepSwitch   = "two switchovers"
	StepRestart  = "a sidecar is killed and starts again"
	StepHole     = "a segment and a history disappear from the archive, and n3 does not reach it"
	StepReached  = "n3 reaches it again"
	StepConflict = "a damaged object has the name of the next segment"
	StepMode     = "archive_mode is on at n3"
	StepStore    = "the archive goes away"
	StepSidecar  = "the sidecar of n3 dies"
	StepDown     = "all sidecars die"
)

// Steps are all of them.
func Steps() []string {
	return []string{StepOrder, StepSwitch, StepRestart, StepHole, StepReached, StepConflict, StepMode, StepStore, StepSidecar, StepDown}
}

// heldFor is how long the last moment of a step goes on: longer than any rule waits, and shorter than a look for holes may be old.
const heldFor = 70 * time.Minute

// Replays are what is to come of a recording of these steps: which alerts fire, and no others.
func Replays() []Replay {
	order := func(step string) Replay { return Replay{Step: step, Before: heldFor, After: heldFor, Quiet: true} }
	failure := func(step string, fires ...string) Replay { return Replay{Step: step, After: heldFor, Fires: fires} }
	away := func(step string, fires ...string) Replay { // who holds the baton then may give it up, and nobody knows of the hole any more
		return Replay{Step: step, After: heldFor, Fires: fires, Either: []string{"WalbatonHole", "WalbatonHistoryMissing"}}
	}
	tooOld := failure(StepRestart, "WalbatonVerifyTooOld")
	tooOld.After = 4 * time.Hour
	two := failure(StepRestart, "WalbatonTwoHolders") // no drill can make that happen: it is what P4 promises
	two.Change = func(series string, values []float64) {
		if strings.HasPrefix(series, "walbaton_baton_held{") {
			values[len(values)-1] = 1
		}
	}
	return []Replay{
		order(StepRestart), // and all that comes before it
		failure(StepHole, "WalbatonDiskFullSoon", "WalbatonHistoryMissing", "WalbatonHole", "WalbatonStandbyHoldsWAL", "WalbatonStoreDown"),
		failure(StepReached, "WalbatonHistoryMissing", "WalbatonHole"),
		failure(StepConflict, "WalbatonConflict", "WalbatonHistoryMissing", "WalbatonHole"),
		failure(StepMode, "WalbatonArchiveMode", "WalbatonConflict", "WalbatonHistoryMissing", "WalbatonHole"),
		away(StepStore, "WalbatonArchiveMode", "WalbatonConflict", "WalbatonMissingAge", "WalbatonStoreDown"),
		away(StepSidecar, "WalbatonConflict", "WalbatonMissingAge", "WalbatonSidecarMissing", "WalbatonStoreDown"), // n3 alone has archive_mode on
		failure(StepDown, "WalbatonDown"),
		tooOld,
		two,
	}
}
