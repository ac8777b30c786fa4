package leader

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write what happened into the scripts")

// TestScripts replays testdata/*.txt. A script is commands and, after each, what the nodes
// did because of it: lines that begin with "> ". The commands stand in newScript.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("scripts: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := replay(t, string(text))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want := string(text); got != want {
				t.Errorf("%s: this happened:\n%s", file, firstDifference(got, want))
			}
		})
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range g {
		if i >= len(w) || g[i] != w[i] {
			end := min(len(g), i+3)
			return fmt.Sprintf("line %d on:\n%s\ninstead of:\n%s", i+1, strings.Join(g[i:end], "\n"), strings.Join(w[min(i, len(w)):min(len(w), i+3)], "\n"))
		}
	}
	return "the script goes on, and nothing happened any more"
}

type script struct {
	*sim
	out   strings.Builder
	show  map[Op]bool
	fates map[string]fate // by node and op
	work  map[string]time.Duration
	opts  Options
}

func replay(t *testing.T, text string) string {
	s := &script{sim: newSim(t), fates: map[string]fate{}, work: map[string]time.Duration{},
		show: map[Op]bool{OpClaim: true, OpBegin: true, OpEnd: true, OpRelease: true, OpDone: true}}
	s.trace, s.sim.fate = s.print, s.fateOf
	s.linger = func(n *simNode) time.Duration { return s.work[n.name] }
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		if strings.HasPrefix(line, "> ") {
			continue
		}
		s.out.WriteString(line + "\n")
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(line, "#") {
			continue
		}
		if err := s.command(words[0], words[1:]); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	return s.out.String()
}

// command runs one line of a script:
//
//	options policy=replica        of the nodes that follow
//	nodes n1 n2 n3                start sidecars, each with a good record
//	leader n1                     Patroni's leader key; "leader -" deletes it
//	member n1 "tags":{}           more JSON in the member key of a replica
//	record n1 store=false receiver=none has=1:2-4 misses=1:2 lacks=1:2 errand=1:2
//	hang|lose|unheard|fail n1 op  what becomes of such requests from now on; "heal n1" ends it
//	slow n1 op 4s                 their answers take that long
//	forget n1                     its record vanishes from the server
//	work n1 3s                    how long its work goes on after the end of a term
//	returns n1                    its work returns by itself
//	pause n1 20s                  it stands still
//	stop n1                       its sidecar is told to stop
//	expire                        the baton's lease ends on the server
//	show|hide op                  what is printed
//	run 5s                        time passes
func (s *script) command(verb string, args []string) error {
	arg := func(i int) string {
		if i < len(args) {
			return args[i]
		}
		return ""
	}
	n := s.nodes[arg(0)]
	switch verb {
	case "options":
		s.opts.Policy, s.opts.MaxLag = Policy(strings.TrimPrefix(arg(0), "policy=")), 1000
	case "nodes":
		for _, name := range args {
			s.add(name, s.opts)
		}
	case "leader":
		if arg(0) == "-" {
			s.server.Delete("leader")
		} else {
			s.lead(arg(0))
		}
	case "member":
		s.server.Put("members/"+arg(0), memberKey(arg(0), "replica", `,"replication_state":"streaming",`+arg(1)))
	case "record":
		return s.record(n, args[1:])
	case "hang", "lose", "unheard", "fail":
		f := map[string]fate{"hang": {lost: true}, "lose": {lost: true}, "unheard": {unheard: true}, "fail": {err: errors.New("refused")}}
		s.fates[arg(0)+" "+arg(1)] = f[verb]
	case "slow":
		d, err := time.ParseDuration(arg(2))
		s.fates[arg(0)+" "+arg(1)] = fate{back: d}
		return err
	case "forget":
		return s.server.Client().Announce(context.Background(), arg(0), "", 0)
	case "heal":
		for key := range s.fates {
			if strings.HasPrefix(key, arg(0)+" ") {
				delete(s.fates, key)
			}
		}
	case "work":
		d, err := time.ParseDuration(arg(1))
		s.work[arg(0)] = d
		return err
	case "returns":
		s.returned(n)
	case "pause":
		d, err := time.ParseDuration(arg(1))
		n.paused = s.now.Add(d)
		return err
	case "stop":
		s.tell(n, func(time.Time) { n.m.Stop() })
	case "expire":
		return s.expire()
	case "show", "hide":
		for _, name := range args {
			s.show[Op(slices.Index(opNames[:], name))] = verb == "show"
		}
	case "run":
		d, err := time.ParseDuration(arg(0))
		s.run(d, func() {
			if h := s.holders(); len(h) > 1 {
				s.t.Errorf("%v hold the baton", h)
			}
		})
		return err
	default:
		return errors.New("unknown command")
	}
	return nil
}

func (s *script) record(n *simNode, settings []string) error {
	r := n.m.mine
	if r.Holder != nil {
		h := *r.Holder
		r.Holder = &h
	}
	for _, setting := range settings {
		key, value, _ := strings.Cut(setting, "=")
		var set Ranges
		if key != "store" && key != "receiver" {
			var err error
			if set, err = ParseRanges(value); err != nil {
				return err
			}
		}
		if key == "lacks" || key == "errand" {
			if r.Holder == nil || r.Holder.Term != n.term.Epoch {
				r.Holder = &Holder{Term: n.term.Epoch}
			}
		}
		switch key {
		case "store":
			r.Store = value == "true"
		case "receiver":
			r.Receiver = Receiver(value)
		case "has":
			r.Has = set
		case "misses":
			r.Misses = set
		case "tried":
			r.Tried = set
		case "refused":
			r.Refused = set
		case "lacks":
			r.Holder.Lacks = set
		case "errand":
			r.Holder.Errand = set
		default:
			return fmt.Errorf("unknown field %s", key)
		}
	}
	s.tell(n, func(time.Time) { n.m.Announce(r) })
	return nil
}

// expire takes the lease away from whoever has it.
func (s *script) expire() error {
	ctx := context.Background()
	for _, name := range s.names {
		if l := s.nodes[name].m.lease; l.Held() {
			if err := s.server.Client().Release(ctx, l); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *script) fateOf(n *simNode, a Action) fate { return s.fates[n.name+" "+a.Op.String()] }

// print writes an action down. Terms are numbered as they come: epochs are the driver's.
func (s *script) print(n *simNode, a Action) {
	if !s.show[a.Op] {
		return
	}
	fmt.Fprintf(&s.out, "> %6.1fs %s %s", s.now.Sub(simStart).Seconds(), n.name, a.Op)
	switch a.Op {
	case OpBegin:
		c := a.Term.Choice
		fmt.Fprintf(&s.out, " by %s: %s", c.Rule, c.Why)
		if !c.Errand.Empty() {
			fmt.Fprintf(&s.out, "; errand %s", c.Errand)
		}
	case OpEnd:
		fmt.Fprintf(&s.out, ": %v", a.Cause)
	case OpAnnounce:
		fmt.Fprintf(&s.out, " %s", s.brief(a))
	}
	s.out.WriteString("\n")
}

func (s *script) brief(a Action) string {
	if a.TTL == 0 {
		return "withdrawn"
	}
	r, err := ParseRecord(a.Value)
	if err != nil {
		return err.Error()
	}
	text := fmt.Sprintf("store=%v has=%s misses=%s", r.Store, r.Has, r.Misses)
	if !r.Tried.Empty() {
		text += fmt.Sprintf(" tried=%s", r.Tried)
	}
	if h := r.Holder; h != nil {
		text += fmt.Sprintf(" holder(rule=%s lacks=%s errand=%s)", h.Rule, h.Lacks, h.Errand)
	}
	return text
}
