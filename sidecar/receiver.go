package main

import (
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/leader"
)

// receiver is what our record says of the walreceiver. When a primary dies, every standby's ends; that it is gone is told one
// lease time later, when the record of the dead primary's sidecar is gone, too. Else each failover would take the baton
// from a standby that has WAL to ship, and keep it for a leader that is dead.
type receiver struct {
	patience time.Duration
	since    time.Time // it was last seen streaming, or the server became a standby; at first the sidecar's start
	last     leader.Receiver
}

// tell takes a reading of the server. A standby that cannot be asked counts as one that does not stream.
func (r *receiver) tell(s archiver.Server, now time.Time) leader.Receiver {
	switch {
	case s.State != archiver.ServerStandby:
		r.since, r.last = now, ""
	case s.Receiver.Streaming:
		r.since, r.last = now, leader.ReceiverStreaming
	case now.Sub(r.since) >= r.patience:
		r.last = leader.ReceiverIdle
	}
	return r.last
}
