package wal_test

import (
	"fmt"
	"testing"

	"github.com/walbaton/walbaton/archiver/wal"
)

func TestStrings(t *testing.T) {
	for v, want := range map[fmt.Stringer]string{
		wal.Complete: "complete", wal.Cut: "cut", wal.Damaged: "damaged", wal.Foreign: "foreign", wal.State(9): "state 9",
		wal.KindSegment: "segment", wal.KindPartial: "partial", wal.KindHistory: "history", wal.KindBackup: "backup", wal.Kind(9): "kind 9",
		wal.DBStarting: "starting up", wal.DBShutDown: "shut down", wal.DBShutDownInRecovery: "shut down in recovery",
		wal.DBShuttingDown: "shutting down", wal.DBCrashRecovery: "in crash recovery", wal.DBArchiveRecovery: "in archive recovery",
		wal.DBInProduction: "in production", wal.ControlState(9): "unrecognized status code",
		wal.Timeline(0xAB): "000000AB", wal.HistoryName(2): "00000002.history", wal.Segment{Timeline: 2}: "00000002",
	} {
		if v.String() != want {
			t.Errorf("got %q, want %q", v.String(), want)
		}
	}
	if got, err := wal.ParseTimeline("000000AB"); err != nil || got != 0xAB {
		t.Errorf("got %v, %v", got, err)
	}
	for _, s := range []string{"", "1", "00000000", "000000ab", "0000000AB", "-0000001"} {
		if got, err := wal.ParseTimeline(s); err == nil {
			t.Errorf("ParseTimeline(%q): got %v", s, got)
		}
	}
	if s := (wal.Segment{Timeline: 1, Size: mib, No: 1<<44 - 1}); s.End() != wal.MaxLSN {
		t.Errorf("the last segment ends at %v", s.End())
	}
}
