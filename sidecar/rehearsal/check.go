package rehearsal

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/walbaton/walbaton/leader/patroni/restapi"
)

// facts are what decides whether a cluster is fit for a rehearsal.
type facts struct {
	cluster     restapi.Cluster
	node        restapi.Node // what the leader says of itself
	synchronous bool         // Patroni's synchronous_mode
	maxLag      float64      // maximum_lag_on_failover in bytes; 0: not known
	sidecar     sidecarStatus
	systemID    uint64 // of the archive
	scope       string
	candidate   string // who was asked for
	command     bool   // a command takes the primary away
}

// sidecarStatus is the part of /status.json that counts here.
type sidecarStatus struct {
	Member   string `json:"member"`
	Scope    string `json:"scope"`
	SystemID uint64 `json:"system_identifier,string"`
	Ready    bool   `json:"ready"`
	Why      string `json:"why"`
	DCS      struct {
		Answers bool `json:"answers"`
		REST    bool `json:"rest"`
	} `json:"dcs"`
	Baton struct {
		Holder string `json:"holder"`
		Term   uint64 `json:"term"`
		Why    string `json:"why"`
	} `json:"baton"`
	Archive struct {
		Open    bool   `json:"open"`
		Answers bool   `json:"answers"`
		Why     string `json:"why"`
	} `json:"archive"`
	Members []struct {
		Name        string `json:"name"`
		Sidecar     bool   `json:"sidecar"`
		Store       bool   `json:"store_answers"`
		ArchiveMode string `json:"archive_mode"`
		Address     string `json:"address"`
		Host        string `json:"host"`
	} `json:"members"`
	Alarms []struct {
		Name string `json:"name"`
		Why  string `json:"why"`
	} `json:"alarms"`
}

// Refused is why a cluster is left alone.
type Refused struct{ Why []string }

func (e *Refused) Error() string {
	return "the cluster is not fit for it: " + strings.Join(e.Why, "; ")
}

// refuse says why the cluster is not fit, one sentence each; nil when it is.
func refuse(f facts) (why []string) {
	say := func(format string, args ...any) { why = append(why, fmt.Sprintf(format, args...)) }
	c := f.cluster
	if c.Paused {
		say("Patroni is paused (maintenance mode), so it would not act: patronictl resume %s", f.scope)
	}
	if len(c.Scheduled) > 0 {
		say("a switchover is scheduled already: patronictl flush %s switchover takes it away", f.scope)
	}
	lead, ok := c.Leader()
	switch {
	case !ok:
		say("no member has the leader key: patronictl list %s shows them", f.scope)
	case lead.Role == "standby_leader":
		say("it is a standby cluster, which takes no writes")
	case !f.node.Running() || f.node.Role != "primary":
		say("the leader %s is no running primary: its Patroni says %s, %s", lead.Name, f.node.Role, f.node.State)
	case f.node.Failsafe:
		say("Patroni's failsafe mode is active: the DCS does not answer")
	}
	for _, m := range c.Members {
		switch {
		case !m.Healthy():
			say("%s is %s: all members must run and follow", m.Name, stateOf(m))
		case ok && m.Timeline != lead.Timeline && m.Timeline != 0:
			say("%s is on timeline %d, and the leader %s on %d", m.Name, m.Timeline, lead.Name, lead.Timeline)
		}
	}
	if ok && len(why) == 0 {
		if s := f.successors(lead); s != "" {
			say("%s", s)
		}
	}
	if f.scope != "" && f.node.Patroni.Scope != "" && !strings.HasPrefix(f.scope, f.node.Patroni.Scope) { // a Citus group adds its number
		say("Patroni's REST API is that of the cluster %s, and the archive is for %s", f.node.Patroni.Scope, f.scope)
	}
	if id := fmt.Sprint(f.systemID); ok && f.node.SystemID != "" && f.node.SystemID != id {
		say("the cluster's system identifier is %s, and the archive is that of %s: give --system-identifier, --archive or --scope", f.node.SystemID, id)
	}
	return append(why, f.sidecars()...)
}

// stateOf is a member's state with its role.
func stateOf(m restapi.Member) string {
	if m.State == "" {
		return "in an unknown state"
	}
	return m.State
}

// successors says why nobody could take over from the leader, "" when somebody can (patroni/ha.py, is_failover_possible).
func (f facts) successors(lead restapi.Member) string {
	var fit, unfit []string
	for _, m := range f.cluster.Members {
		if m.Name == lead.Name {
			continue
		}
		why := f.unfit(m)
		switch {
		case m.Name == f.candidate && why != "":
			return fmt.Sprintf("%s cannot become the primary: %s", m.Name, why)
		case why != "":
			unfit = append(unfit, m.Name+": "+why)
		default:
			fit = append(fit, m.Name)
		}
	}
	switch {
	case f.candidate == lead.Name:
		return fmt.Sprintf("%s is the primary already: give another member to --candidate, or leave it out", lead.Name)
	case f.candidate != "" && !slices.Contains(fit, f.candidate):
		return fmt.Sprintf("there is no member %s: --candidate takes one of %s", f.candidate, strings.Join(fit, ", "))
	case len(fit) > 0:
		return ""
	case len(unfit) == 0:
		return "there is no replica that could take over"
	}
	return "no replica could take over (" + strings.Join(unfit, "; ") + ")"
}

// unfit says why a member cannot become the primary, "" when it can.
func (f facts) unfit(m restapi.Member) string {
	var tags struct {
		NoFailover any `json:"nofailover"`
	}
	_ = json.Unmarshal(m.Tags, &tags) // without tags it has none
	lag, known := m.Lag.(float64)
	switch {
	case tags.NoFailover == true || tags.NoFailover == "true":
		return "it has the tag nofailover"
	case f.synchronous && m.Role != "sync_standby" && m.Role != "quorum_standby":
		return "synchronous_mode is on, and it is no synchronous standby"
	case m.Lag != nil && !known:
		return "how far it lags behind is not known"
	case f.maxLag > 0 && lag > f.maxLag:
		return fmt.Sprintf("it lags %.0f bytes behind, more than maximum_lag_on_failover (%.0f)", lag, f.maxLag)
	}
	return ""
}

// sidecars says what is not in order with walbaton itself.
func (f facts) sidecars() (why []string) {
	say := func(format string, args ...any) { why = append(why, fmt.Sprintf(format, args...)) }
	s := f.sidecar
	if s.SystemID != 0 && s.SystemID != f.systemID {
		say("the sidecar of %s is of another cluster: its system identifier is %d", s.Member, s.SystemID)
		return why
	}
	switch {
	case !s.Archive.Open:
		say("the sidecar of %s has no open archive: %s", s.Member, s.Archive.Why)
	case !s.Archive.Answers:
		say("the archive does not answer the sidecar of %s: %s", s.Member, s.Archive.Why)
	case !s.Ready:
		say("the sidecar of %s is not ready: %s", s.Member, s.Why)
	}
	for _, a := range s.Alarms {
		say("%s needs a person first: %s (walbaton explain %s)", a.Name, a.Why, a.Name)
	}
	if s.DCS.REST {
		return why // of the others it knows nothing
	}
	if s.Baton.Holder == "" {
		say("nobody holds the baton: %s", s.Baton.Why)
	}
	live := map[string]bool{}
	for _, m := range s.Members {
		live[m.Name] = m.Sidecar
		switch {
		case m.Sidecar && !m.Store:
			say("the archive does not answer the sidecar of %s", m.Name)
		case m.Sidecar && m.ArchiveMode == "off":
			say("archive_mode is off at %s", m.Name)
		}
	}
	for _, m := range f.cluster.Members {
		if !live[m.Name] {
			say("no sidecar answers beside %s", m.Name)
		}
	}
	return why
}
