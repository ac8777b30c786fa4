package archiver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/wal"
)

// Backup is a base backup as its backup history file (<segment>.<offset>.backup) tells of it. PostgreSQL writes that file on a
// primary, when pg_backup_stop or pg_basebackup is done. Backups of a standby and snapshots of a disk leave none.
type Backup struct {
	Name  wal.Name
	Label string  // what the person or the program called it
	Start wal.LSN // recovery from it begins here
	Stop  wal.LSN // and needs all up to here; 0 when the file could not be read
	Began time.Time
	Ended time.Time // no earlier than it really ended; see ParseBackup
}

// errNoBackup is the kind of an object that is whole, and no backup history file.
var errNoBackup = errors.New("no backup history file")

// ParseBackup reads a backup history file (xlogbackup.c, build_backup_content). stored is when the archive got it.
//
// PostgreSQL writes times with the name of its log_timezone, and most names mean several zones. One that is neither UTC, nor a number, nor the
// name that this machine's own zone has counts as any, and so the backup as ended when the file was stored, since that was later.
func ParseBackup(n wal.Name, r io.Reader, stored time.Time) (Backup, error) {
	b := Backup{Name: n, Start: n.Segment.Start() + wal.LSN(n.Offset), Ended: stored}
	in := bufio.NewScanner(io.LimitReader(r, 1<<16))
	for in.Scan() {
		key, value, _ := strings.Cut(in.Text(), ": ")
		switch key {
		case "START WAL LOCATION", "STOP WAL LOCATION":
			at, _, _ := strings.Cut(value, " ")
			lsn, err := wal.ParseLSN(at)
			switch {
			case err != nil:
				return Backup{}, fmt.Errorf("read %v: %w", n, wrong(errNoBackup, "%v", err))
			case key == "STOP WAL LOCATION":
				b.Stop = lsn
			case lsn != b.Start:
				return Backup{}, fmt.Errorf("read %v: %w", n, wrong(errNoBackup, "it says that the backup began at %v", lsn))
			}
		case "START TIME":
			b.Began, _ = backupTime(value)
		case "STOP TIME":
			if t, ok := backupTime(value); ok {
				b.Ended = t
			}
		case "LABEL":
			b.Label = value
		}
	}
	if err := in.Err(); err != nil {
		return Backup{}, fmt.Errorf("read %v: %w", n, err)
	}
	if b.Stop < b.Start {
		return Backup{}, fmt.Errorf("read %v: %w", n, wrong(errNoBackup, "it does not say where the backup ended"))
	}
	return b, nil
}

// backupTime reads "2026-11-21 08:42:50 UTC"; the second result says whether the name of the zone says which it is.
func backupTime(s string) (time.Time, bool) {
	const form = "2006-01-02 15:04:05 "
	for _, number := range []string{"-07", "-0700", "-07:00"} {
		if t, err := time.Parse(form+number, s); err == nil {
			return t.UTC(), true
		}
	}
	t, err := time.ParseInLocation(form+"MST", s, time.Local)
	if err != nil {
		return time.Time{}, false
	}
	name, offset := t.Zone() // a name that it does not know gets the offset 0
	return t.UTC(), name == "UTC" || name == "GMT" || offset != 0 || t.Location() == time.Local
}

// readBackup reads the history file of a backup. One that is encrypted for somebody else tells nothing but what its name and time do.
func (a *Archive) readBackup(ctx context.Context, o Object) (Backup, error) {
	h, r, err := a.Open(ctx, a.Key(o.Name))
	if errors.Is(err, seal.ErrEncrypted) {
		return Backup{Name: o.Name, Start: o.Name.Segment.Start() + wal.LSN(o.Name.Offset), Ended: o.Modified}, nil
	}
	if err != nil {
		return Backup{}, err
	}
	defer r.Close()
	if err := checkHeader(h, o.Name, a.id.SystemID, a.id.SegmentSize); err != nil {
		return Backup{}, fmt.Errorf("read %v: %w", o.Name, err)
	}
	return ParseBackup(o.Name, r, o.Modified)
}
