//go:build drills

package drill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// What drills about the baton ask: who has it, by the sidecars' status; who shipped what, by the headers of the objects; which
// way it went, by the sidecars' logs; and what an administrator is told.

// nodeStatus is what these drills read of /status.json.
type nodeStatus struct {
	Ready bool
	Why   string
	Baton struct {
		Holder, Rule, Why string
		Term              uint64
	}
	Archive struct {
		Answers       bool
		Why           string
		Waiting, Kept int
		Lacks         int
	}
	Alarms []struct{ Row, Name, Why string }
}

func (n *Node) look(ctx context.Context) (st nodeStatus, err error) {
	text, err := n.Status(ctx)
	if err != nil {
		return st, err
	}
	return st, json.Unmarshal(text, &st)
}

// holds is the verb that waits until the sidecars of all these nodes, or the first that answers, say that n has the baton.
func (s *scenario) holds(n *Node, asked ...*Node) func(context.Context) error {
	return func(ctx context.Context) error {
		return until(ctx, clusterLimit, n.Name+" has the baton", func(ctx context.Context) error { return s.holdsNow(ctx, n, asked) })
	}
}

func (s *scenario) holdsNow(ctx context.Context, n *Node, asked []*Node) error {
	if len(asked) == 0 {
		holder, err := s.Holder(ctx)
		if err == nil && holder != n {
			err = fmt.Errorf("%s has it", holder.Name)
		}
		return err
	}
	for _, a := range asked {
		st, err := a.look(ctx)
		if err == nil && st.Baton.Holder != n.Name {
			err = fmt.Errorf("%s says that %q has it (%s)", a.Name, st.Baton.Holder, st.Baton.Why)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// holdsStill fails the drill when somebody else than n has the baton within this time.
func (s *scenario) holdsStill(n *Node, d time.Duration, asked ...*Node) {
	s.t.Helper()
	s.do(fmt.Sprintf("%s has the baton for %v", n.Name, d), func(ctx context.Context) error {
		for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
			if err := s.holdsNow(ctx, n, asked); err != nil {
				return err
			}
		}
		return nil
	})
}

// mark is a moment of a drill, and what the archive had then.
type mark struct {
	at    time.Time
	known []Header
}

func (s *scenario) mark() mark {
	s.t.Helper()
	known, err := s.Shipped(s.ctx, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return mark{time.Now(), known}
}

// shippedBy waits until somebody has shipped since the mark, and fails the drill when that was not n in a term, but for the
// first segment of a timeline.
func (s *scenario) shippedBy(since mark, n *Node) {
	s.t.Helper()
	s.do(n.Name+" has shipped what came since", func(ctx context.Context) error {
		var all []Header
		err := until(ctx, failoverLimit, "something was shipped", func(ctx context.Context) (err error) {
			if all, err = s.Shipped(ctx, since.known); err == nil && len(all) == 0 {
				err = errors.New("nothing was")
			}
			return err
		})
		if err != nil {
			return err
		}
		first := map[string]bool{}
		for _, h := range since.known {
			first[h.Name[:8]] = true
		}
		for _, h := range all {
			opens := !first[h.Name[:8]]
			first[h.Name[:8]] = true
			if !opens && (h.Member != n.Name || h.Term == 0) {
				return fmt.Errorf("%s was put by %s in term %d", h.Name, h.Member, h.Term)
			}
		}
		return nil
	})
}

// opened fails the drill when another node than one of these has put the first segment of a timeline.
func (s *scenario) opened(timeline int, by ...*Node) {
	s.t.Helper()
	all, err := s.Shipped(s.ctx, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, h := range all {
		if strings.HasPrefix(h.Name, fmt.Sprintf("%08X", timeline)) {
			if !slices.ContainsFunc(by, func(n *Node) bool { return n.Name == h.Member }) {
				s.t.Errorf("timeline %d was opened by %s with %s in term %d", timeline, h.Member, h.Name, h.Term)
			}
			return
		}
	}
	s.t.Errorf("timeline %d was not opened", timeline)
}

// batons are the lines of the sidecars' logs about the baton, in the order of time, with the member before them.
func (s *scenario) batons() []string {
	var lines []string
	for _, n := range s.Nodes {
		for line := range strings.Lines(n.Log("sidecar")) {
			if strings.Contains(line, "took the baton") || strings.Contains(line, "gave the baton back") || strings.Contains(line, "lost the baton") {
				when, what, _ := strings.Cut(strings.TrimSpace(line), " ")
				lines = append(lines, when+" "+n.Name+" "+what)
			}
		}
	}
	slices.Sort(lines)
	return lines
}

// mostDetours is how often the baton may pass the leader in between: a replica that does not stream for two of Patroni's loops
// loses it, and in a drill they are short.
const mostDetours = 4

// path fails the drill when the baton, since the mark, did not go this way, but for a few detours. That a node takes it twice in a
// row is allowed: on a busy machine a renewal may come too late.
func (s *scenario) path(since mark, want ...*Node) {
	s.t.Helper()
	var got, wanted []string
	for _, line := range s.batons() {
		words := strings.Fields(line)
		at, err := time.Parse("time=2006-01-02T15:04:05.000Z", words[0])
		if err != nil {
			s.t.Fatal(err)
		}
		if strings.Contains(line, "took the baton") && at.After(since.at) {
			got = append(got, words[1])
		}
	}
	for _, n := range want {
		wanted = append(wanted, n.Name)
	}
	got = slices.Compact(got)
	detours := len(got) - len(wanted)
	if detours < 0 || detours > mostDetours || got[0] != wanted[0] || got[len(got)-1] != wanted[len(wanted)-1] {
		s.t.Errorf("the baton went to %v, want %v", got, wanted)
	}
	s.t.Log("the way of the baton:\n" + strings.Join(s.batons(), "\n"))
}

// calm fails the drill when the status of a node names something that needs a person. A node that was cloned just now gets the time to be ready.
func (s *scenario) calm(nodes ...*Node) {
	s.t.Helper()
	for _, n := range nodes {
		err := until(s.ctx, failoverLimit, n.Name+" is ready", func(ctx context.Context) error {
			st, err := n.look(ctx)
			if err == nil && !st.Ready {
				err = errors.New(st.Why)
			}
			if err == nil && len(st.Alarms) > 0 {
				s.t.Errorf("%s: alarms %v", n.Name, st.Alarms)
			}
			return err
		})
		if err != nil {
			s.t.Error(err)
		}
	}
}

// drains is the verb that waits until at most so many segments wait in a node's pg_wal.
func (s *scenario) drains(n *Node, most int) func(context.Context) error {
	return func(ctx context.Context) error {
		return until(ctx, failoverLimit, "few segments wait on "+n.Name, func(context.Context) error {
			waiting, err := n.WAL("ready")
			if err == nil && len(waiting) > most {
				err = fmt.Errorf("%d do, from %s on", len(waiting), waiting[0])
			}
			return err
		})
	}
}

// failing is the verb that waits until the writer's transactions fail.
func (s *scenario) failing(ctx context.Context) error {
	before := s.writer.Failures()
	return until(ctx, failoverLimit, "writes fail", func(context.Context) error {
		if n := s.writer.Failures() - before; n < 3 {
			return fmt.Errorf("%d did", n)
		}
		return nil
	})
}

// says fails the drill when walbaton status on a node does not have these words.
func (s *scenario) says(n *Node, words ...string) {
	s.t.Helper()
	out, _ := Output(n.Walbaton(s.ctx, "status")) // 3 is no failure here
	for _, w := range words {
		if !strings.Contains(out, w) {
			s.t.Errorf("walbaton status on %s does not say %q:\n%s", n.Name, w, out)
		}
	}
}

// explains does so for walbaton explain.
func (s *scenario) explains(n *Node, name string, words ...string) {
	s.t.Helper()
	out, _ := Output(n.Walbaton(s.ctx, "explain", name))
	for _, w := range words {
		if !strings.Contains(out, w) {
			s.t.Errorf("walbaton explain %s on %s does not say %q:\n%s", name, n.Name, w, out)
		}
	}
}
