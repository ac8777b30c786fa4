package main

import (
	"sync"
	"time"
)

// rateMinutes is how far back rates go.
const rateMinutes = 60

// RatesStatus is what this node put into the archive in each minute of the last hour, as far as the sidecar has lived. The last minute is not over.
type RatesStatus struct {
	First    time.Time `json:"first"` // the beginning of the first minute
	Segments []uint64  `json:"segments"`
	Bytes    []uint64  `json:"bytes"` // compressed, as stored, of files of every kind
}

// rates counts by the minute.
type rates struct {
	mu              sync.Mutex
	of              any // whose counts these are: those of another site begin at 0 again
	segments, bytes uint64
	minutes         []minute // the oldest first, without a gap
}

type minute struct {
	at              time.Time
	segments, bytes uint64
}

// note takes the counts of a source up to now.
func (r *rates) note(now time.Time, of any, segments, bytes uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if of != r.of {
		r.of, r.segments, r.bytes = of, 0, 0
	}
	this := now.UTC().Truncate(time.Minute)
	n := len(r.minutes)
	if n == 0 || this.Sub(r.minutes[n-1].at) > rateMinutes*time.Minute || this.Before(r.minutes[n-1].at) {
		r.minutes, n = []minute{{at: this}}, 1 // the clock was set, or the machine slept
	}
	for r.minutes[n-1].at.Before(this) {
		r.minutes = append(r.minutes, minute{at: r.minutes[n-1].at.Add(time.Minute)})
		n++
	}
	if n > rateMinutes {
		r.minutes = append([]minute{}, r.minutes[n-rateMinutes:]...)
		n = rateMinutes
	}
	last := &r.minutes[n-1]
	last.segments += segments - r.segments
	last.bytes += bytes - r.bytes
	r.segments, r.bytes = segments, bytes
}

// status gives what was noted; nil before the first time.
func (r *rates) status() *RatesStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.minutes) == 0 {
		return nil
	}
	s := &RatesStatus{First: r.minutes[0].at}
	for _, m := range r.minutes {
		s.Segments, s.Bytes = append(s.Segments, m.segments), append(s.Bytes, m.bytes)
	}
	return s
}
