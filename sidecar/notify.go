package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// notifier tells systemd how the sidecar is doing. Without systemd (no NOTIFY_SOCKET) it does nothing.
type notifier struct{ log *slog.Logger }

func (n notifier) tell(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		n.log.Warn("cannot tell systemd", "state", state, "error", err)
	}
}

// Ready says that the sidecar answers.
func (n notifier) Ready() { n.tell(daemon.SdNotifyReady) }

// Stopping says that it is about to end.
func (n notifier) Stopping() { n.tell(daemon.SdNotifyStopping) }

// Watch feeds systemd's watchdog (WatchdogSec=) until ctx ends, as long as alive says so: it must
// return false when the program is stuck, and must not look at a network.
func (n notifier) Watch(ctx context.Context, alive func() bool) {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		n.log.Warn("cannot read systemd's watchdog settings", "error", err)
		return
	}
	if limit <= 0 {
		return
	}
	t := time.NewTicker(limit / 3)
	defer t.Stop()
	for {
		if alive() {
			n.tell(daemon.SdNotifyWatchdog)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}
