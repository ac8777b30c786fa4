package main

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/walbaton/walbaton/leader"
	"github.com/walbaton/walbaton/leader/dcs/mem"
	"github.com/walbaton/walbaton/sidecar/wiring"
)

// A history is hidden for the sake of a live leader only. On Kubernetes a dead node's Pod goes on saying that it runs: there only
// a sidecar's record, which ends, proves that the leader lives.
func TestLiveLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := mem.New(time.Now)
		server.Put("leader", "n2")
		server.Put("members/n2", `{"role":"primary","state":"running","timeline":1}`)
		e, err := leader.New(server.Client(), leader.Options{Self: "n1"})
		if err != nil {
			t.Fatal(err)
		}
		for _, podsStay := range []bool{false, true} {
			s := &scope{elector: e, lens: &wiring.Lens{}, podsStay: podsStay}
			if l, err := s.Leader(t.Context()); err != nil || l.Name != "n2" || l.Live == podsStay {
				t.Errorf("by its key alone, pods stay %v: %+v, %v", podsStay, l, err)
			}
		}
		record, err := leader.Record{Version: leader.RecordVersion, Member: "n2", SystemID: 7, Timeline: 1}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := server.Client().Announce(t.Context(), "n2", record, time.Minute); err != nil {
			t.Fatal(err)
		}
		server.Put("initialize", "7")
		s := &scope{elector: e, lens: &wiring.Lens{}, podsStay: true}
		if l, err := s.Leader(t.Context()); err != nil || !l.Live {
			t.Errorf("by its record: %+v, %v", l, err)
		}
	})
}
