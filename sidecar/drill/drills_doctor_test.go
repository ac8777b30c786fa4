//go:build drills

package drill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// walbaton doctor on a cluster that is well, and on one in which one thing after the other is not: each has its line, and where the fix is
// something to type, that is typed, and the line is ✓ again.
func TestDrillDoctor(t *testing.T) {
	s := begin(t, Options{})
	d := &doctor{s}
	first := s.Nodes[0]
	s.do("all is well, as each node sees it", func(ctx context.Context) error {
		return until(ctx, time.Minute, "all is well", func(ctx context.Context) error { // the holder looks for holes half a minute after its term begins
			for _, n := range s.Nodes {
				if err := d.well(ctx, n, ""); err != nil {
					return err
				}
			}
			return nil
		})
	})
	d.elsewhere(first)

	p := s.primary()
	standbys := s.Standbys(p)
	x := standbys[0]
	s.do("somebody uses ALTER SYSTEM on "+x.Name, func(ctx context.Context) error {
		return errors.Join(x.Exec(ctx, "alter system set archive_command = '/bin/true'"), x.Exec(ctx, "select pg_reload_conf()"))
	})
	d.says(first, "archive_command", "broken", "'/bin/true' of "+x.Name+": it does not call walbaton-wal")
	d.types(first, "archive_command", x)
	d.says(first, "archive_command", "ok", "")

	s.do("somebody sets archive_mode to on", func(ctx context.Context) error {
		return s.Configure(ctx, `{"postgresql": {"parameters": {"archive_mode": "on"}}}`)
	})
	d.says(first, "pending restart", "warning", "a restart of n1, n2 and n3 is pending for archive_mode")
	d.says(first, "archive_mode", "ok", "always on n1, n2 and n3")
	d.types(first, "pending restart", x)
	d.says(first, "archive_mode", "warning", "on on n1, n2 and n3: best effort")
	d.types(first, "archive_mode", x)
	d.says(first, "archive_mode", "ok", "always on n1, n2 and n3")
	d.says(first, "pending restart", "ok", "none on n1, n2 and n3")
	s.do("all stream", s.AllStreaming)

	s.do("the sidecar of "+x.Name+" is stopped", func(ctx context.Context) error { return x.sidecar.terminate(ctx, 20*time.Second) })
	d.says(first, "sidecars", "broken", "none is alive beside "+x.Name)
	d.says(first, "one node alone", "warning", "what "+x.Name+" has alone is not known, for its sidecar is down: do not reinit it")
	d.says(x, "socket", "broken", "there is no socket")
	s.do("it is started, as the fix says", x.StartSidecar)
	d.says(x, "socket", "ok", "")
	d.says(first, "sidecars", "ok", "alive beside n1, n2 and n3")

	s.do("the store goes away", s.StopStore)
	s.do("three segments are finished", s.finish(3))
	d.says(first, "store", "broken", "")
	d.says(first, "readiness", "broken", "would not answer a push well")
	s.do("the disks of both standbys lose them", func(ctx context.Context) error { return d.lose(ctx, p, standbys) })
	d.says(first, "one node alone", "warning", p.Name+" alone has ")
	s.do("the store comes back", s.StartStore)
	s.do("all is well again", func(ctx context.Context) error {
		return until(ctx, time.Minute, "all is well", func(ctx context.Context) error { return d.well(ctx, first, "half a minute") })
	})
	s.settle()

	s.do("the DCS goes away", s.StopDCS)
	d.says(first, "DCS", "broken", "does not answer")
	s.do("doctor hangs at nothing then", func(ctx context.Context) error {
		begin := time.Now()
		_, err := d.ask(ctx, first)
		if took := time.Since(begin); took > 20*time.Second {
			err = errors.Join(err, fmt.Errorf("it took %v", took))
		}
		return err
	})
}

// doctor runs walbaton doctor and does what it says.
type doctor struct{ *scenario }

// diagnosis is what walbaton doctor --json prints.
type diagnosis struct {
	Level    string
	Findings []symptom
}

type symptom struct {
	Check, Level, Text, Fix string
	Nodes                   []string
}

// ask runs doctor on a node. Its exit code must be that of its report.
func (d *doctor) ask(ctx context.Context, n *Node, args ...string) (diagnosis, error) {
	return d.read(n.Walbaton(ctx, "doctor", append([]string{"--json"}, args...)...))
}

func (d *doctor) read(cmd *exec.Cmd) (got diagnosis, err error) {
	out, err := Output(cmd)
	if e := json.Unmarshal([]byte(out), &got); e != nil {
		return diagnosis{}, errors.Join(err, e)
	}
	want := map[string]int{"ok": 0, "warning": 1, "broken": 2}[got.Level]
	if code := cmd.ProcessState.ExitCode(); code != want {
		return diagnosis{}, fmt.Errorf("exit code %d for %s, want %d", code, got.Level, want)
	}
	return got, nil
}

// well says why not all is well; only what except names need not have been looked at.
func (d *doctor) well(ctx context.Context, n *Node, except string, args ...string) error {
	got, err := d.ask(ctx, n, args...)
	return errors.Join(err, got.well(except))
}

func (d diagnosis) well(except string) error {
	if len(d.Findings) < 30 {
		return fmt.Errorf("it has %d findings", len(d.Findings))
	}
	for _, f := range d.Findings {
		if f.Level != "ok" && (f.Level != "unexamined" || !strings.Contains(f.Text, except) || except == "") {
			return fmt.Errorf("%s: %s: %s", f.Check, f.Level, f.Text)
		}
	}
	return nil
}

// says waits until a check has a finding of that level and text, and nothing worse.
func (d *doctor) says(n *Node, check, level, text string) {
	d.t.Helper()
	d.do(fmt.Sprintf("%s says %s: %s %s", n.Name, check, level, text), func(ctx context.Context) error {
		return until(ctx, time.Minute, "it does", func(ctx context.Context) error {
			got, err := d.ask(ctx, n)
			if err != nil {
				return err
			}
			all := got.of(check)
			worse := slices.IndexFunc(all, func(f symptom) bool { return f.Level != level && level == "ok" })
			at := slices.IndexFunc(all, func(f symptom) bool { return f.Level == level && strings.Contains(f.Text, text) })
			if at < 0 || worse >= 0 {
				return fmt.Errorf("it says %+v", all)
			}
			if level != "ok" && all[at].Fix == "" {
				return fmt.Errorf("without a fix: %+v", all)
			}
			return nil
		})
	})
}

func (d diagnosis) of(check string) (all []symptom) {
	for _, f := range d.Findings {
		if f.Check == check {
			all = append(all, f)
		}
	}
	return all
}

// types types the fix of what a check says of a node, as it stands there.
func (d *doctor) types(n *Node, check string, about *Node) {
	d.t.Helper()
	d.do("the fix of "+check+" is typed", func(ctx context.Context) error {
		got, err := d.ask(ctx, n)
		if err != nil {
			return err
		}
		for _, f := range got.of(check) {
			if f.Level == "ok" || !slices.Contains(f.Nodes, about.Name) {
				continue
			}
			typed := 0
			for line := range strings.Lines(f.Fix) {
				command, is := strings.CutPrefix(strings.TrimRight(line, "\n"), "  ")
				if !is {
					continue
				}
				typed++
				if strings.Contains(command, " restart ") { // the text says so
					if err := d.pending(ctx); err != nil {
						return err
					}
				}
				d.t.Logf("       $ %s", command)
				if out, err := Output(d.Command(ctx, "sh", "-c", command)); err != nil {
					return fmt.Errorf("%w\n%s", err, out)
				}
			}
			if typed == 0 {
				return fmt.Errorf("nothing to type: %s", f.Fix)
			}
			return nil
		}
		return fmt.Errorf("it says %+v", got.of(check))
	})
}

// pending waits until Patroni knows that something waits for a restart.
func (d *doctor) pending(ctx context.Context) error {
	return until(ctx, 20*time.Second, "a restart is pending", func(ctx context.Context) error {
		_, body, err := get(ctx, d.Nodes[0].rest()+"/cluster")
		if err == nil && !strings.Contains(string(body), `"pending_restart": true`) {
			err = fmt.Errorf("Patroni says %s", body)
		}
		return err
	})
}

// elsewhere asks from a machine that is no member, and as root.
func (d *doctor) elsewhere(n *Node) {
	d.t.Helper()
	d.do("all is well from a machine that is no member", func(ctx context.Context) error {
		return d.well(ctx, n, "not on a member", "--postgres-data-dir", "/nowhere", "--socket", "/nowhere/socket", "--keep-dir", "/elsewhere")
	})
	d.do("all is well for root, who becomes postgres and leaves nothing of its own", func(ctx context.Context) error {
		cmd := exec.CommandContext(ctx, n.bin("walbaton"), "doctor", "--json", "--config", n.config())
		got, err := d.read(cmd)
		if err := errors.Join(err, got.well("")); err != nil {
			return err
		}
		found, err := Output(exec.CommandContext(ctx, "find", strings.TrimPrefix(d.Store.URL(), "file://"), "-user", "root"))
		if err == nil && found != "" {
			err = fmt.Errorf("root's: %s", found)
		}
		return err
	})
}

// lose takes from the standbys' disks what waits on the primary, and is finished on all.
func (d *doctor) lose(ctx context.Context, p *Node, standbys []*Node) error {
	waits, err := p.WAL("ready")
	if err != nil {
		return err
	}
	waits = slices.DeleteFunc(waits, func(name string) bool { return len(name) != 24 })
	if len(waits) < 2 {
		return fmt.Errorf("%s waits with %v", p.Name, waits)
	}
	for _, n := range standbys {
		for _, name := range waits[:2] {
			if !exists(filepath.Join(n.PGData(), "pg_wal", name)) {
				return fmt.Errorf("%s has no %s", n.Name, name)
			}
		}
		if err := n.LoseWAL(waits[:2]...); err != nil {
			return err
		}
	}
	return nil
}
