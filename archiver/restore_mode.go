package archiver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/walbaton/walbaton/archiver/wal"
)

// mode is who calls restore_command, and what "not there" makes them do.
type mode uint8

const (
	byHand     mode = iota // no signal file: a person, or a program of theirs
	inRecovery             // recovery.signal: "not there" ends recovery and promotes
	onStandby              // standby.signal, which wins over recovery.signal: "not there" makes it stream
	inRewind               // pg_rewind: "not there" makes it give up
	promoting              // the end of recovery, when the signal files are gone: "not there" loses the ancestors of the new timeline
)

// modeOf tells the caller by the signal files in the data directory, as PostgreSQL does at its start. pg_rewind asks for a
// file under its own name, where the server uses RECOVERYXLOG and RECOVERYHISTORY (xlogarchive.c, pg_rewind.c).
func (r *Restorer) modeOf(dst, name string) mode {
	switch {
	case filepath.Base(dst) == name:
		return inRewind
	case r.o.DataDir == "":
		return byHand
	case there(filepath.Join(r.o.DataDir, "standby.signal")) == nil:
		return onStandby
	case !errors.Is(there(filepath.Join(r.o.DataDir, "recovery.signal")), os.ErrNotExist):
		return inRecovery // also when the disk does not say: that answer does no harm
	case filepath.Base(dst) == "RECOVERYHISTORY", filepath.Base(dst) == "RECOVERYXLOG":
		// The server removes its signal files before it writes the history of its new timeline, for
		// which it asks for the parent's (timeline.c, writeTimeLineHistory). Nobody can write meanwhile.
		return promoting
	}
	return byHand
}

func there(path string) error {
	_, err := os.Stat(path)
	return err
}

// readControl reads pg_control of a data directory.
func readControl(dataDir string) (wal.Control, error) {
	f, err := os.Open(filepath.Join(dataDir, "global", "pg_control"))
	if err != nil {
		return wal.Control{}, fmt.Errorf("read pg_control: %w", err)
	}
	defer f.Close()
	return wal.ReadControl(f)
}
