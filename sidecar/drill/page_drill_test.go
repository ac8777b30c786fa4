//go:build drills

package drill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/sidecar/web/webtest"
)

// The page of a standby's sidecar shows the whole cluster in a real browser, follows a switchover, a hole and an outage of the DCS without a reload, and says when it
// has lost its sidecar. With $WALBATON_RECORD, a folder, its states are written there: what the pictures in docs/screenshots are made of.
func TestDrillPage(t *testing.T) {
	s := prepare(t, Options{Settings: "verify_every: 2s\n"}, drillLimit)
	s.do("three nodes start", s.Start)
	s.do("a writer writes", func(ctx context.Context) (err error) {
		s.writer, err = s.Write(ctx, drillRate/2)
		return err
	})
	t.Cleanup(s.writer.Stop)
	old, to, asked := s.Nodes[0], s.Nodes[1], s.Nodes[2]
	b := webtest.Start(t)
	b.Screen(1280, 900, false)
	b.Open("http://" + asked.listen() + "/")
	has := func(selector, text string) string {
		return fmt.Sprintf(`(document.querySelector(%q) || {innerText: ""}).innerText.includes(%q)`, selector, text)
	}
	holds := func(n *Node) string {
		return fmt.Sprintf(`[...document.querySelectorAll("#members tr")].some(r => r.innerText.startsWith(%q) && r.querySelector(".badge"))`, n.Name)
	}
	b.Until(60*time.Second, "all is well", has("h1", "All is well"))
	b.Until(30*time.Second, old.Name+" holds the baton", holds(old))
	if got := b.Text("#about"); !strings.Contains(got, "Shown by "+asked.Name) {
		t.Errorf("the page says %q, and %s was asked", got, asked.Name)
	}
	webtest.Eval[int](b, "window.neverReloaded = 1")

	s.do("five segments are finished", s.finish(5))
	s.switchesOver(b, to, holds(to))
	b.Until(20*time.Second, "the change is told", has("#changes", to.Name+" became the leader")+" && "+has("#changes", to.Name+" took the baton"))
	s.losesItsSidecar(b, asked)
	b.Until(60*time.Second, "what can be restored is known", has("#facts", "to any moment"))
	if os.Getenv("WALBATON_RECORD") != "" {
		time.Sleep(2 * time.Minute) // so that there is something to see in the last hour
	}
	s.keepState(b, asked, "healthy", has("h1", "All is well"))
	s.showsAHole(b, asked, has("h1", "The archive has a hole"))

	s.do("the DCS stops", s.StopDCS)
	b.Until(40*time.Second, "the page says so", has("h1", "The DCS does not answer"))
	s.keepState(b, asked, "dcs-lost", has("h1", "The DCS does not answer"))
	s.do("it is back", s.StartDCS)
	b.Until(60*time.Second, "the page says so", "!"+has("h1", "The DCS does not answer"))
	if webtest.Eval[int](b, "window.neverReloaded || 0") != 1 {
		t.Error("the page was loaded again")
	}
	for _, wrong := range b.Audit() {
		t.Errorf("at the end: %s", wrong)
	}
	for _, c := range b.Complaints() {
		t.Errorf("the page complains: %s", c)
	}
	for _, r := range b.Strangers("http://" + asked.listen() + "/") {
		t.Errorf("the page asks %s", r)
	}
}

// switchesOver makes another node the primary, and waits until the page says that it holds the baton.
func (s *scenario) switchesOver(b *webtest.Browser, to *Node, holds string) {
	s.t.Helper()
	ctx, stop := context.WithCancel(s.ctx)
	done := make(chan error, 1)
	go func() { done <- s.keepChange(ctx, to) }()
	s.do(to.Name+" becomes the primary", s.switchover(to))
	took := b.Until(30*time.Second, to.Name+" holds the baton", holds)
	s.t.Logf("the page shows it %.1fs after %s took writes", took.Seconds(), to.Name)
	stop()
	if err := <-done; err != nil {
		s.t.Error(err)
	}
}

// keepChange keeps the last state that was neither well nor wrong, until ctx ends.
func (s *scenario) keepChange(ctx context.Context, n *Node) error {
	to := os.Getenv("WALBATON_RECORD")
	for ; to != "" && ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
		_, body, err := get(ctx, "http://"+n.listen()+"/cluster.json")
		if err == nil && strings.Contains(string(body), `"level": "changing"`) {
			if err := os.WriteFile(filepath.Join(to, "cluster-switchover.json"), body, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// losesItsSidecar kills the sidecar that the page listens to, and starts it again.
func (s *scenario) losesItsSidecar(b *webtest.Browser, n *Node) {
	s.t.Helper()
	s.do("the sidecar of "+n.Name+" is killed", n.KillSidecar)
	b.Until(30*time.Second, "the page says so, and turns grey", fmt.Sprintf(
		`document.body.className === "stale" && !document.getElementById("lost").hidden && document.getElementById("lost").innerText.startsWith("No connection to %s. What you see was true at ")`, n.Name))
	if got := b.Text("#said"); !strings.Contains(got, "is lost") {
		s.t.Errorf("those who listen are told %q", got)
	}
	s.do("it is started again", n.StartSidecar)
	b.Until(60*time.Second, "the page is live again", `document.body.className === "live" && document.getElementById("lost").hidden`)
}

// showsAHole takes a segment out of the archive for a while.
func (s *scenario) showsAHole(b *webtest.Browser, asked *Node, shown string) {
	s.t.Helper()
	var path string
	s.do("a segment disappears from the archive", func(ctx context.Context) error {
		objects, err := s.Store.Objects(ctx)
		if err != nil {
			return err
		}
		var segments []string // of the first timeline, all below the fork. Without its .partial nothing would be missing
		for _, o := range objects {
			if strings.Contains(o.Key, "/wal/00000001/") && len(filepath.Base(o.Key)) == 24 {
				segments = append(segments, o.Key)
			}
		}
		if len(segments) < 3 {
			return errors.New("there are only a few")
		}
		path = filepath.Join(strings.TrimPrefix(s.Store.URL(), "file://"), segments[len(segments)-2])
		return os.Rename(path, filepath.Join(s.Dir, "hidden"))
	})
	b.Until(60*time.Second, "the page says so", shown)
	s.keepState(b, asked, "hole", shown)
	s.do("it is put back", func(context.Context) error { return os.Rename(filepath.Join(s.Dir, "hidden"), path) })
}

// keepState writes what the page shows now, where that is asked for.
func (s *scenario) keepState(b *webtest.Browser, n *Node, name, shown string) {
	s.t.Helper()
	to := os.Getenv("WALBATON_RECORD")
	if to == "" {
		return
	}
	b.Until(30*time.Second, name, shown)
	_, body, err := get(s.ctx, "http://"+n.listen()+"/cluster.json")
	if err == nil && !json.Valid(body) {
		err = fmt.Errorf("it is no JSON: %.100s", body)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(to, "cluster-"+name+".json"), body, 0o644)
	}
	if err != nil {
		s.t.Error(err)
	}
}
