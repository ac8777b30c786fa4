//go:build drills

package drill

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// past is a state of a cluster that a recovery has to give back later.
type past struct {
	base    *Base
	rows    map[int64]string
	folder  string
	objects map[string]Object
}

// remember ends the writer, and remembers what the cluster has and what its archive has then.
func (s *scenario) remember() past {
	s.t.Helper()
	s.writer.Stop()
	p := past{base: s.base, folder: s.base.Folder() + "/"}
	s.do("what there is now is remembered", func(ctx context.Context) (err error) {
		p.rows, err = Rows(ctx, s.primary().DSN()) // which writes WAL: hint bits
		if err == nil && len(p.rows) == 0 {
			err = errNoRows
		}
		return err
	})
	s.settle()
	return p
}

// seal remembers the objects of the folder: nothing may come, change or go from now on.
func (p *past) seal(s *scenario) {
	s.t.Helper()
	p.objects = s.objects(p.folder)
}

// objects are those below a folder of the archive that are kept.
func (s *scenario) objects(folder string) map[string]Object {
	s.t.Helper()
	all, err := s.Store.Objects(s.ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	found := map[string]Object{}
	for _, o := range all {
		if strings.HasPrefix(o.Key, folder) && kept(o.Key) && !strings.Contains(filepath.Base(o.Key), "tmp") {
			found[o.Key] = o
		}
	}
	if len(found) == 0 {
		s.t.Fatalf("the archive has nothing below %s", folder)
	}
	return found
}

// untouched proves that the folder is as it was when it was sealed.
func (s *scenario) untouched(p past) {
	s.t.Helper()
	now := s.objects(p.folder)
	for key, was := range p.objects {
		if now[key] != was {
			s.t.Errorf("%s was %v, and is %v", key, was, now[key])
		}
		delete(now, key)
	}
	for key := range now {
		s.t.Errorf("%s came", key)
	}
	s.t.Logf("the folder %s has the same %d objects", p.folder, len(p.objects))
}

// restorable proves that recoveries give the past back, with and without walbaton.
func (s *scenario) restorable(p past) {
	s.t.Helper()
	for _, how := range []How{ByHand, ByWalbaton} {
		server := s.restoreFrom(p.base, how)
		s.do("it has the rows of then", func(ctx context.Context) error {
			got, err := Rows(ctx, server.DSN())
			if err == nil {
				err = Difference(got, p.rows)
			}
			return err
		})
		s.do("the restored server goes", func(context.Context) error { return server.Stop() })
	}
}

// restoreFrom recovers a server from a base backup to the end of the archive.
func (s *scenario) restoreFrom(b *Base, how How) *Server {
	s.t.Helper()
	var server *Server
	s.do("a new server is restored "+string(how), func(ctx context.Context) (err error) {
		server, err = b.Restore(ctx, how, time.Time{})
		return err
	})
	return server
}

// exits runs a command of walbaton on a node, shows what it wrote, and fails the drill when its exit code is another or a
// word is missing.
func (s *scenario) exits(n *Node, code int, words []string, verb string, args ...string) {
	s.t.Helper()
	cmd := n.Walbaton(s.ctx, verb, args...)
	text, err := cmd.CombinedOutput()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		s.t.Fatal(err)
	}
	s.t.Logf("walbaton %s on %s exits with %d:\n%s", strings.Join(append([]string{verb}, args...), " "), n.Name, cmd.ProcessState.ExitCode(), text)
	if got := cmd.ProcessState.ExitCode(); got != code {
		s.t.Errorf("walbaton %s: exit code %d, want %d", verb, got, code)
	}
	for _, w := range words {
		if !strings.Contains(string(text), w) {
			s.t.Errorf("walbaton %s says nothing of %q", verb, w)
		}
	}
}

// saidOnce fails the drill unless the logs of all sidecars together have a line with these words just once.
func (s *scenario) saidOnce(words ...string) {
	s.t.Helper()
	var lines []string
	for _, n := range s.Nodes {
		for _, line := range n.lines(words) {
			lines = append(lines, n.Name+": "+line)
		}
	}
	if len(lines) != 1 {
		s.t.Errorf("%q is said %d times, want once: %q", words, len(lines), lines)
	} else {
		s.t.Logf("said once: %s", lines[0])
	}
}

// saidBy fails the drill unless the sidecar of the node has said this, and just once.
func (s *scenario) saidBy(n *Node, words ...string) {
	s.t.Helper()
	if lines := n.lines(words); len(lines) != 1 {
		s.t.Errorf("the sidecar of %s has said %q %d times, want once: %q", n.Name, words, len(lines), lines)
	}
}

// lines are those of the sidecar's log that have all of these words.
func (n *Node) lines(words []string) (found []string) {
next:
	for line := range strings.Lines(n.Log("sidecar")) {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue next
			}
		}
		found = append(found, strings.TrimSpace(line))
	}
	return found
}

// metric is one value of a node's /metrics: of a metric that has no labels but those that all have.
func (s *scenario) metric(n *Node, name string) float64 {
	s.t.Helper()
	_, body, err := get(s.ctx, "http://"+n.listen()+"/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(body)) {
		if labels, ok := strings.CutPrefix(line, name+"{"); ok {
			_, value, _ := strings.Cut(strings.TrimSpace(labels), "} ")
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				s.t.Fatal(err)
			}
			return v
		}
	}
	s.t.Fatalf("%s has no metric %s", n.Name, name)
	return 0
}
