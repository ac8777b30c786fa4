package archiver

import (
	"sync/atomic"
	"time"
)

// optionalWait is how long a put into an optional archive may go on when the required ones have the file.
const optionalWait = time.Second

// countdown ends what is optional a moment after all that is required has ended.
type countdown struct {
	left atomic.Int32
	end  func()
}

func (a *Archiver) newCountdown(targets []*target, end func()) *countdown {
	c := &countdown{end: end}
	for _, t := range targets {
		if t.Required {
			c.left.Add(1)
		}
	}
	if c.left.Load() == 0 {
		time.AfterFunc(optionalWait, end)
	}
	return c
}

func (c *countdown) done() {
	if c.left.Add(-1) == 0 {
		time.AfterFunc(optionalWait, c.end)
	}
}
