package main

import (
	"log/slog"
	"math/bits"
	"sync"
	"syscall"
	"time"

	"github.com/walbaton/walbaton/archiver/wal"
)

// While the archive is away every node keeps its WAL, and its disk fills. What an administrator has to know then is how long
// that lasts, and on which node.

// diskFree is how many bytes PostgreSQL may still write to the disk of a folder.
func diskFree(dir string) (uint64, error) {
	free, _, err := diskSpace(dir)
	return free, err
}

// diskSpace gives the size of that disk, too.
func diskSpace(dir string) (free, size uint64, err error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, 0, err
	}
	return s.Bavail * uint64(s.Bsize), s.Blocks * uint64(s.Bsize), nil
}

// tight says that so few segments fit on the disk that the others should know, whatever the archive does.
const tight = 64

// roundFree is what the record in the DCS says of free bytes: rounded down so that it seldom changes. 0 would mean that
// nobody knows.
func roundFree(n uint64) uint64 {
	if drop := bits.Len64(n) - 3; drop > 0 {
		n = n >> drop << drop
	}
	return max(n, 1)
}

// pace is how fast WAL grows here: the flush position of the last minutes.
type pace struct {
	mu   sync.Mutex
	seen []position // one in paceEvery, oldest first
}

type position struct {
	at  time.Time
	lsn wal.LSN
}

const (
	paceEvery = 5 * time.Second
	paceOver  = 5 * time.Minute
)

// note takes a reading. A position that went back is another server's.
func (p *pace) note(now time.Time, lsn wal.LSN) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k := len(p.seen); k > 0 && lsn < p.seen[k-1].lsn {
		p.seen = nil
	} else if k > 0 && now.Sub(p.seen[k-1].at) < paceEvery {
		return
	}
	if lsn != 0 {
		p.seen = append(p.seen, position{now, lsn})
	}
	for len(p.seen) > 0 && now.Sub(p.seen[0].at) > paceOver {
		p.seen = p.seen[1:]
	}
}

// perSecond is the mean over what was seen; 0 when that is not enough to say.
func (p *pace) perSecond() float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.seen) < 2 {
		return 0
	}
	first, last := p.seen[0], p.seen[len(p.seen)-1]
	return float64(last.lsn-first.lsn) / last.at.Sub(first.at).Seconds()
}

// forYears is as long as anybody looks ahead. A large disk beside an idle server would last longer than a time.Duration can say.
const forYears = 100 * 365 * 24 * time.Hour

// lasts is how long so many bytes last, forYears at most; 0 when nobody can say.
func lasts(free uint64, perSecond float64) time.Duration {
	if perSecond < 1 {
		return 0
	}
	return time.Duration(min(float64(free)/perSecond, forYears.Seconds()) * float64(time.Second))
}

// lastsText is how people say it.
func lastsText(d time.Duration) string {
	switch {
	case d < time.Minute:
		return counted(int(d.Seconds()), "second")
	case d < 2*time.Hour:
		return counted(int(d.Minutes()), "minute")
	case d < 48*time.Hour:
		return counted(int(d.Hours()), "hour")
	case d >= 2*365*24*time.Hour:
		return "years"
	}
	return counted(int(d.Hours())/24, "day")
}

// diskWarner logs as a disk fills for want of the archive: once for each step.
type diskWarner struct {
	log  *slog.Logger
	step int
}

var diskSteps = []time.Duration{24 * time.Hour, time.Hour, 10 * time.Minute, 0}

// look takes what is so now. segments wait for an archive that is silent.
func (w *diskWarner) look(silent bool, segments int, size wal.SegmentSize, free uint64, perSecond float64) {
	if !silent || segments == 0 {
		w.step = 0
		return
	}
	left, full := lasts(free, perSecond), free < uint64(size)
	step := 0
	for i, limit := range diskSteps {
		if full || left > 0 && left < limit {
			step = i + 1
		}
	}
	if step <= w.step {
		return
	}
	w.step = step
	log := w.log.With("segments", segments, "kept", sizeText(int64(segments)*int64(size)), "free", sizeText(int64(free)))
	if full {
		log.Error("the disk of pg_wal is full of WAL that waits for the archive, and PostgreSQL stops: bring the archive back, or make the disk larger; delete nothing in pg_wal")
		return
	}
	log.Warn("WAL waits for the archive, and the disk of pg_wal fills", "lasts", lastsText(left))
}
