package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/walbaton/walbaton/leader/patroni/restapi"
	"github.com/walbaton/walbaton/sidecar/setup"
)

// settingUp is one run of setup.
type settingUp struct {
	setupFlags
	*lookout
	c     *cobra.Command
	w     world
	every time.Duration // between two looks while it waits

	patience time.Duration // from the restart of a node until all is as before

	facts  setup.Facts
	plan   setup.Changes
	report setupReport
}

// setupReport is what --json prints.
type setupReport struct {
	Cluster string `json:"cluster"`
	Asked   string `json:"asked"`
	setup.Changes
	Applied   bool     `json:"applied"`   // the dynamic configuration was changed
	Restarted []string `json:"restarted"` // nodes, in order
	Done      bool     `json:"done"`      // nothing is left to do
}

// restartPatience bounds the time from the restart of a node until it streams again: it may have to recover much WAL.
const restartPatience = 10 * time.Minute

func (s *settingUp) run(ctx context.Context) error {
	s.report.Restarted = []string{}
	if err := s.lookAgain(ctx); err != nil {
		return withHint(fmt.Errorf("setup: %w", err), "is Patroni running here? --patroni-url http://HOST:8008 asks another member's")
	}
	s.say("%s", differenceText(s.facts, s.plan, s.base, s.apply))
	if s.apply {
		if err := s.change(ctx); err != nil {
			return err
		}
	}
	s.report.Cluster, s.report.Asked, s.report.Changes, s.report.Done = s.facts.Scope, s.base, s.plan, s.plan.Done()
	if s.json {
		if err := printJSON(s.w.stdout, s.report); err != nil {
			return err
		}
	}
	if !s.plan.Done() {
		return justCode(exitFound)
	}
	return nil
}

func (s *settingUp) lookAgain(ctx context.Context) error {
	f, err := s.look(ctx)
	if err == nil {
		s.facts, s.plan = f, setup.Plan(f)
	}
	return err
}

// say tells a person; with --json nobody.
func (s *settingUp) say(format string, args ...any) {
	if !s.json {
		_, _ = fmt.Fprintf(s.w.stdout, format, args...) // what is done counts, whoever listens
	}
}

// change makes what differs, and restarts what needs it.
func (s *settingUp) change(ctx context.Context) error {
	asked := false
	if s.plan.Done() {
		return nil
	}
	if len(s.plan.Patch) > 0 {
		if !s.yes {
			if err := confirm(s.c, s.w, s.json, "setup", "Make this change in Patroni's dynamic configuration?", "nothing was changed"); err != nil {
				return err
			}
			asked = true
		}
		if err := s.patch(ctx); err != nil {
			return err
		}
	}
	restart, err := s.mayRestart(asked)
	if err == nil && restart {
		err = s.roll(ctx, slices.Clone(s.plan.Restart))
	}
	if err == nil {
		s.say("%s", leftText(s.plan, s.report.Applied))
	}
	return err
}

// mayRestart says whether nodes are to be restarted now: --restart says so, or a person at the terminal.
func (s *settingUp) mayRestart(asked bool) (bool, error) {
	in, ok := s.c.InOrStdin().(*os.File)
	somebody := ok && isTerminal(in) && !s.json
	switch {
	case len(s.plan.Restart) == 0:
		return false, nil
	case s.restart && (asked || s.yes):
		return true, nil
	case !s.restart && (s.yes || !somebody):
		return false, nil
	}
	err := confirm(s.c, s.w, s.json, "setup", fmt.Sprintf("Restart PostgreSQL of %s now, one at a time?", inOrder(s.plan.Restart)), "nothing was restarted")
	if err != nil && !s.restart {
		return false, nil // a question that --restart did not bring up
	}
	return err == nil, err
}

// patch changes the dynamic configuration, and waits until the nodes have it.
func (s *settingUp) patch(ctx context.Context) error {
	never := map[string]bool{} // nodes that have something of their own, as it seems, and will not take what is new
	for _, o := range s.plan.Own {
		never[o.Node] = never[o.Node] || o.Seems
	}
	_, err := s.api.Patch(ctx, s.base, s.plan.Patch)
	var refused *restapi.StatusError
	switch {
	case errors.As(err, &refused) && refused.Code == 409:
		return withHint(fmt.Errorf("setup: %w", err), "somebody changed it at the same time: look, and try again")
	case err != nil:
		return withHint(fmt.Errorf("setup: %w", err), "look whether it was changed: walbaton setup")
	}
	s.report.Applied = true
	s.say("\nPatroni's dynamic configuration is changed; waiting until every node has noticed ...\n")
	limit := 2*s.loopWait() + 10*time.Second
	err = s.wait(ctx, limit, func() string {
		if len(s.plan.Patch) > 0 {
			return "Patroni at " + s.base + " shows the one from before" // it answers from what it knew in its last loop
		}
		waits := s.plan.Waits()
		for _, n := range s.facts.Nodes {
			if slices.Contains(s.plan.Restart, n.Name) && !n.Restart && !slices.Contains(waits, n.Name) {
				waits = append(waits, n.Name)
			}
		}
		return strings.Join(slices.DeleteFunc(waits, func(name string) bool { return never[name] }), ", ")
	})
	var late *lateError
	if errors.As(err, &late) {
		s.say("! after %v not every node has in effect what it says: %s\n", limit, late.what)
		return nil
	}
	return err
}

// loopWait is Patroni's: how long a node may take to notice.
func (s *settingUp) loopWait() time.Duration {
	if n, ok := s.facts.Dynamic["loop_wait"].(float64); ok && n > 0 && n < 600 {
		return time.Duration(n * float64(time.Second))
	}
	return 10 * time.Second
}

// lateError means that something did not happen in time.
type lateError struct{ what string }

func (e *lateError) Error() string { return e.what }

// wait looks again and again until what is missing is nothing. A cluster that cannot be asked is one more thing that is missing.
func (s *settingUp) wait(ctx context.Context, limit time.Duration, missing func() string) error {
	for end := time.Now().Add(limit); ; {
		what := ""
		if err := s.lookAgain(ctx); err != nil {
			what = err.Error()
		} else if what = missing(); what == "" {
			return nil
		}
		if err := sleep(ctx, s.every); err != nil {
			return err
		}
		if time.Now().After(end) {
			return &lateError{what}
		}
	}
}

// roll restarts nodes one at a time, and looks before each whether the cluster bears it.
func (s *settingUp) roll(ctx context.Context, names []string) error {
	s.say("\n")
	for i, name := range names {
		if why := setup.Unhealthy(s.facts); len(why) > 0 {
			return withHint(fmt.Errorf("setup: restart nothing now: %s", strings.Join(why, "; ")), s.goOn(names[i:]))
		}
		began := time.Now()
		s.say("%s", s.announceRestart(name))
		if err := s.restartNode(ctx, name); err != nil {
			return withHint(fmt.Errorf("setup: %s: %w", name, err), s.goOn(names[i+1:]))
		}
		s.report.Restarted = append(s.report.Restarted, name)
		s.say(" done after %.1f s\n", time.Since(began).Seconds())
	}
	return nil
}

func (s *settingUp) announceRestart(name string) string {
	if lead, _ := s.facts.Leader(); lead.Name == name && !lead.Standby {
		return name + ": restarts in place, as the primary; clients have to connect again ..."
	}
	return name + ": restarts ..."
}

// goOn says what remains, and what to type.
func (s *settingUp) goOn(left []string) string {
	if len(left) == 0 {
		return "look at it (patronictl list, walbaton status), and then: walbaton setup"
	}
	return fmt.Sprintf("not restarted: %s. When that is mended: walbaton setup --apply --restart", strings.Join(left, ", "))
}

// restartNode restarts one PostgreSQL, and returns when the cluster is as before and the new archive_mode in effect.
func (s *settingUp) restartNode(ctx context.Context, name string) error {
	within, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	cluster, err := s.api.Cluster(within, s.base)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(cluster.Members, func(m restapi.Member) bool { return m.Name == name })
	if at < 0 || cluster.Members[at].URL == "" {
		return errors.New("ask for its REST API: Patroni does not say where it is")
	}
	err = s.api.Restart(within, cluster.Members[at].URL, false)
	var answer *restapi.StatusError
	if err != nil && !(errors.As(err, &answer) && answer.Unsure()) {
		return err
	}
	late := s.wait(ctx, s.patience, func() string {
		why := setup.Unhealthy(s.facts)
		if slices.Contains(s.plan.Restart, name) {
			why = append(why, "archive_mode is not in effect yet")
		}
		return strings.Join(why, "; ")
	})
	if errors.As(late, new(*lateError)) {
		late = fmt.Errorf("it was restarted, and %v later: %w", s.patience, late)
	}
	if late != nil && answer != nil {
		late = fmt.Errorf("%w (%w)", late, err)
	}
	return late
}

// inOrder names nodes in the order in which they are restarted.
func inOrder(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + ", then " + names[len(names)-1]
}
