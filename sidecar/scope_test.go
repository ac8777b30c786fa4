package main

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walbaton/walbaton/archiver/wal"
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

// A leader has just been promoted to timeline 2. Patroni's member key says so, its sidecar's record does not yet, and nobody can tell the
// ancestors: the timeline counts all the same, for its history may be in the archive already. Hidden it would be used twice.
func TestLeaderTimeline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := mem.New(time.Now)
		server.Put("initialize", "7")
		server.Put("leader", "n2")
		e, err := leader.New(server.Client(), leader.Options{Self: "n1"})
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			name           string
			member, record uint32
			want           wal.Timeline
		}{
			{"the record is behind", 2, 1, 2},
			{"the member key is behind", 1, 2, 2},
			{"the sidecar has just started, and the member key may be behind", 1, 0, 0},
		} {
			server.Put("members/n2", fmt.Sprintf(`{"role":"primary","state":"running","timeline":%d}`, tt.member))
			record, err := leader.Record{Version: leader.RecordVersion, Member: "n2", SystemID: 7, Timeline: tt.record}.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if err := server.Client().Announce(t.Context(), "n2", record, time.Minute); err != nil {
				t.Fatal(err)
			}
			lens := &wiring.Lens{}
			v, err := e.Read(t.Context())
			if got := lens.Cluster(v, true).LeaderTimeline; err != nil || got != tt.want {
				t.Errorf("%s: who ships sees timeline %d, want %d (%v)", tt.name, got, tt.want, err)
			}
			if l, err := (&scope{elector: e, lens: lens}).Leader(t.Context()); err != nil || !l.Live || l.Timeline != tt.want {
				t.Errorf("%s: who fetches sees %+v, want timeline %d (%v)", tt.name, l, tt.want, err)
			}
		}
	})
}
