package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"
)

// ControlState is what the server was doing when it last wrote pg_control.
type ControlState int32

// The states (pg_control.h, DBState).
const (
	DBStarting ControlState = iota
	DBShutDown
	DBShutDownInRecovery
	DBShuttingDown
	DBCrashRecovery
	DBArchiveRecovery
	DBInProduction
)

// String returns the words of pg_controldata.
func (s ControlState) String() string {
	switch s {
	case DBStarting:
		return "starting up"
	case DBShutDown:
		return "shut down"
	case DBShutDownInRecovery:
		return "shut down in recovery"
	case DBShuttingDown:
		return "shutting down"
	case DBCrashRecovery:
		return "in crash recovery"
	case DBArchiveRecovery:
		return "in archive recovery"
	case DBInProduction:
		return "in production"
	}
	return "unrecognized status code"
}

// Control is what walbaton needs of global/pg_control.
type Control struct {
	SystemID            uint64
	Major               int // 12 to 18
	State               ControlState
	Checkpoint, Redo    LSN      // the latest checkpoint's record, and where replay from it begins
	RedoTimeline        Timeline // of that checkpoint; lags behind a promotion until its checkpoint ends
	MinRecovery         LSN      // how far recovery must go to be consistent; 0 on a primary
	MinRecoveryTimeline Timeline
	SegmentSize         SegmentSize
	Updated             time.Time // in seconds
	Checksums           bool      // data checksums are on
}

// Offsets in bytes on 64-bit little-endian machines, the same from 12 to 18 but for the CRC
// (pg_control.h, ControlFileData).
const (
	controlSize    = 296 // up to and with the last CRC
	controlCRC     = 288
	controlCRC18   = 292
	controlTries   = 10
	controlTryWait = 5 * time.Millisecond
)

// ErrControl is the error of a pg_control that is torn, damaged, or of an unknown version.
var ErrControl = errors.New("not a pg_control of PostgreSQL 12 to 18")

// ReadControl reads pg_control while a server may write it: a wrong CRC is a torn read until ten reads,
// 5 ms apart, have found one. A short file, too, may only just have been created.
func ReadControl(r io.ReaderAt) (Control, error) {
	for try := 1; ; try++ {
		c, err := readControl(r)
		if err == nil || !errors.Is(err, ErrControl) || try == controlTries {
			return c, err
		}
		time.Sleep(controlTryWait)
	}
}

func readControl(r io.ReaderAt) (Control, error) {
	var b [controlSize]byte
	if n, err := r.ReadAt(b[:], 0); n < len(b) {
		if errors.Is(err, io.EOF) {
			return Control{}, fmt.Errorf("read pg_control: %w: only %d bytes", ErrControl, n)
		}
		return Control{}, fmt.Errorf("read pg_control: %w", err)
	}
	u32 := func(off int) uint32 { return binary.LittleEndian.Uint32(b[off:]) }
	u64 := func(off int) uint64 { return binary.LittleEndian.Uint64(b[off:]) }

	version, catalog := u32(8), u32(12)
	major := controlMajor(version, catalog)
	if major == 0 {
		return Control{}, fmt.Errorf("read pg_control: %w: version %d", ErrControl, version)
	}
	at := controlCRC
	if major >= 18 {
		at = controlCRC18
	}
	if crc32.Checksum(b[:at], castagnoli) != u32(at) {
		return Control{}, fmt.Errorf("read pg_control: %w: its checksum does not fit", ErrControl)
	}
	c := Control{
		SystemID:            u64(0),
		Major:               major,
		State:               ControlState(u32(16)),
		Updated:             time.Unix(int64(u64(24)), 0).UTC(),
		Checkpoint:          LSN(u64(32)),
		Redo:                LSN(u64(40)),
		RedoTimeline:        Timeline(u32(48)),
		MinRecovery:         LSN(u64(136)),
		MinRecoveryTimeline: Timeline(u32(144)),
		SegmentSize:         SegmentSize(u32(228)),
		Checksums:           u32(252) != 0,
	}
	if !c.SegmentSize.Valid() {
		return Control{}, fmt.Errorf("read pg_control: %w: segments of %d bytes", ErrControl, u32(228))
	}
	return c, nil
}

// controlMajor tells the PostgreSQL version by pg_control's version, and where 13 to 16 share one by
// the catalog's: that of a release, or lower, in its betas.
func controlMajor(version, catalog uint32) int {
	switch version {
	case 1201:
		return 12
	case 1300:
		switch {
		case catalog <= 202007201:
			return 13
		case catalog <= 202107181:
			return 14
		case catalog <= 202209061:
			return 15
		}
		return 16
	case 1700:
		return 17
	case 1800:
		return 18
	}
	return 0
}
