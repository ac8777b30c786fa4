//go:build drills

package drill

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"
)

// Drill 2 with sidecars that only have Patroni's REST API: there is no baton, and no sidecar knows of another. Each node's
// archiver waits until the primary has shipped, and what the dead primary could not ship its successor finds in its own pg_wal.
func TestDrill02KilledPrimaryRest(t *testing.T) {
	s := begin(t, Options{Settings: "dcs: {kind: rest}\n"})
	old := s.primary()
	s.killPrimaryWhileStoreIsDown()
	for _, n := range s.Nodes {
		if n != old {
			s.do(n.Name+" knows by REST alone who leads", func(ctx context.Context) error { return s.leadsByREST(ctx, n, s.primary()) })
		}
	}
	s.do("the dead primary comes back", old.Restart)
	s.do("by pg_rewind", s.AllStreaming)
	s.do("another node becomes the primary", s.switchover(old))
	s.do("three more segments are finished", s.finish(3))
	s.do("the standbys follow", s.AllStreaming)
	s.do("the DCS goes away, and Patroni demotes the primary: nobody ships", s.StopDCS)
	time.Sleep(10 * time.Second)
	s.do("the DCS comes back", s.StartDCS)
	s.do("a primary is there again", s.promoted)
	s.do("three more segments are finished", s.finish(3))
	s.do("all stream", s.AllStreaming)
	s.wholeTruth()
	s.do("no archiver waits for anything, on any node", func(ctx context.Context) error {
		return until(ctx, time.Minute, "nothing is .ready", func(context.Context) error {
			for _, n := range s.Nodes {
				if ready, err := n.WAL("ready"); err != nil || len(ready) > 0 {
					return fmt.Errorf("%s: %v, %v", n.Name, ready, err)
				}
			}
			return nil
		})
	})
}

// leadsByREST waits until n's sidecar names the leader, and knows of no baton.
func (s *scenario) leadsByREST(ctx context.Context, n, leader *Node) error {
	return until(ctx, 30*time.Second, "the leader is known", func(ctx context.Context) error {
		raw, err := n.Status(ctx)
		if err != nil {
			return err
		}
		var st struct {
			DCS     struct{ Answers, Rest bool }
			Baton   struct{ Holder string }
			Members []struct {
				Name   string
				Leader bool
			}
		}
		if err := json.Unmarshal(raw, &st); err != nil {
			return err
		}
		leads := ""
		for _, m := range st.Members {
			if m.Leader {
				leads = m.Name
			}
		}
		if leads != leader.Name || !st.DCS.Rest || !st.DCS.Answers || st.Baton.Holder != "" {
			return fmt.Errorf("%s", raw)
		}
		return nil
	})
}
