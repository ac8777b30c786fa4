package wiring

import (
	"testing"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/leader"
)

// A standby says whether its walreceiver streams, and nothing of it while PostgreSQL does not answer.
func TestRecordReceiver(t *testing.T) {
	streams := archiver.Receiver{Streaming: true}
	for _, c := range []struct {
		srv  archiver.Server
		want leader.Receiver
	}{
		{archiver.Server{State: archiver.ServerStandby, SQL: true, Receiver: streams}, leader.ReceiverStreams},
		{archiver.Server{State: archiver.ServerStandby, SQL: true}, leader.ReceiverNone},
		{archiver.Server{State: archiver.ServerStandby}, ""},
		{archiver.Server{State: archiver.ServerStopped}, ""},
		{archiver.Server{State: archiver.ServerPrimary, SQL: true}, ""},
	} {
		if got := Record(leader.Record{}, c.srv, wal.History{}, nil).Receiver; got != c.want {
			t.Errorf("%+v: receiver %q, want %q", c.srv, got, c.want)
		}
	}
}
