package main

import (
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/leader"
)

// A standby that has lost its primary says so only when it has for one lease time: a failover is no reason to give the baton up.
func TestReceiverIsPatient(t *testing.T) {
	start := time.Unix(1000, 0)
	r := receiver{patience: 15 * time.Second, since: start}
	streams := archiver.Server{State: archiver.ServerStandby, SQL: true, Receiver: archiver.Receiver{Streaming: true}}
	alone := archiver.Server{State: archiver.ServerStandby, SQL: true}
	for _, step := range []struct {
		at   int // seconds
		srv  archiver.Server
		want leader.Receiver
	}{
		{0, alone, ""},
		{14, alone, ""},
		{15, alone, leader.ReceiverIdle},
		{16, streams, leader.ReceiverStreaming},
		{30, alone, leader.ReceiverStreaming}, // the primary died
		{31, alone, leader.ReceiverIdle},
		{32, archiver.Server{State: archiver.ServerStarting}, ""},
		{46, alone, ""},
		{47, archiver.Server{State: archiver.ServerStandby}, leader.ReceiverIdle}, // it cannot be asked, either
		{48, archiver.Server{State: archiver.ServerPrimary, SQL: true}, ""},
	} {
		if got := r.tell(step.srv, start.Add(time.Duration(step.at)*time.Second)); got != step.want {
			t.Errorf("after %d s: %q, want %q", step.at, got, step.want)
		}
	}
}
