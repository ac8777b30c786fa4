package leader

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"
)

// Term is one holding of the baton.
type Term struct {
	Epoch  uint64 // grows from term to term, whoever holds them
	Choice Choice // why we took it; with RuleErrand, what to ship first
	View   View   // the reading that decided it
}

// Causes that a term's context can end with (context.Cause). ErrDemoted, ErrErrandDone and ErrErrandVain
// are wrapped in an error that says who is next and why, or why nobody is.
var (
	ErrExpired    = newCause("baton: the lease could not be renewed in time")
	ErrLost       = newCause("baton: the DCS says that the lease has ended")
	ErrDemoted    = newCause("baton: it is not ours any more")
	ErrErrandDone = newCause("baton: the errand is done")
	ErrErrandVain = newCause("baton: the errand is given up, for nothing more of it could be shipped in a while")
	ErrReleased   = newCause("baton: the work returned by itself")
	ErrStopped    = newCause("baton: the sidecar stops") // the context that Run was given has ended
)

// cause is why a term's context ended. To errors.Is it is context.Canceled too: a request that the end of its term cut
// short was cancelled, and says nothing about who was asked.
type cause struct{ text string }

func newCause(text string) error { return &cause{text} }

func (c *cause) Error() string        { return c.text }
func (c *cause) Is(target error) bool { return target == context.Canceled }

// ends are the label values of walbaton_terms_total.
var ends = []struct {
	cause error
	label string
}{
	{ErrExpired, "expired"},
	{ErrLost, "lost"},
	{ErrDemoted, "demoted"},
	{ErrErrandDone, "errand_done"},
	{ErrErrandVain, "errand_given_up"},
	{ErrReleased, "released"},
	{ErrStopped, "stopped"},
}

func endLabel(cause error) string {
	for _, e := range ends {
		if errors.Is(cause, e.cause) {
			return e.label
		}
	}
	return "stopped"
}

// endText is a cause as a log shows it beside what it means: that the term is over need not be said again.
func endText(cause error) string {
	text := strings.TrimPrefix(cause.Error(), ErrDemoted.Error()+": ")
	return strings.TrimPrefix(text, "baton: ")
}

// guard ends a term's context at its deadline. It is a timer of its own: no loop, lock or
// request of the Elector stands between the deadline and the end of the context.
type guard struct {
	cancel func(cause error)

	mu    sync.Mutex
	at    time.Time
	over  bool
	timer *time.Timer
}

func newGuard(at time.Time, cancel func(cause error)) *guard {
	g := &guard{cancel: cancel, at: at}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.timer = time.AfterFunc(time.Until(at), g.fire)
	return g
}

func (g *guard) fire() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if rest := time.Until(g.at); rest > 0 && !g.over {
		g.timer.Reset(rest) // extended while the timer fired
		return
	}
	g.end(ErrExpired)
}

// extend moves the deadline and says whether it could: a context that has ended stays so.
func (g *guard) extend(at time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.over || time.Until(g.at) <= 0 {
		return false
	}
	g.at = at
	g.timer.Reset(time.Until(at))
	return true
}

// stop ends the context now, unless it has ended.
func (g *guard) stop(cause error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.end(cause)
}

func (g *guard) end(cause error) {
	if g.over {
		return
	}
	g.over = true
	g.timer.Stop()
	g.cancel(cause)
}
