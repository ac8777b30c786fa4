package patroni

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/walbaton/walbaton/leader/dcs"
)

// ErrNoCluster says that the scope holds no key of Patroni's: it has not started yet, or
// namespace or scope are wrong.
var ErrNoCluster = errors.New("no Patroni key in this scope")

// Parse reads what Patroni 2.1 to 4.1 writes below a scope. Junk never fails it: what cannot
// be understood is left out and named in Cluster.Warnings, as Patroni itself does. The only
// error is ErrNoCluster.
func Parse(nodes map[string]dcs.Node) (Cluster, error) {
	p := parser{Cluster: Cluster{Members: map[string]Member{}}}
	known := 0
	for key, node := range nodes {
		if p.node(key, node) {
			known++
		}
	}
	p.config(nodes["config"].Value)
	p.status(nodes)
	slices.Sort(p.Warnings)
	if known == 0 {
		return p.Cluster, fmt.Errorf("parse cluster: %w", ErrNoCluster)
	}
	return p.Cluster, nil
}

type parser struct{ Cluster }

func (p *parser) warn(format string, args ...any) {
	p.Warnings = append(p.Warnings, fmt.Sprintf(format, args...))
}

// node reads one key and says whether it is one of Patroni's.
func (p *parser) node(key string, n dcs.Node) bool {
	switch key {
	case "leader":
		p.Leader, p.LeaderToken = strings.TrimSpace(n.Value), n.Token
		if p.Leader == "" {
			p.LeaderToken = 0
		}
	case "initialize":
		p.initialize(n.Value)
	case "history":
		p.history(n.Value)
	case "config", "status", "optime/leader", "sync", "failover", "failsafe":
	default:
		name, ok := strings.CutPrefix(key, "members/")
		if !ok || name == "" || strings.Contains(name, "/") {
			return false
		}
		p.Members[name] = p.member(name, n.Value)
	}
	return true
}

// initialize is empty while a node bootstraps the cluster.
func (p *parser) initialize(v string) {
	if v = strings.TrimSpace(v); v == "" {
		return
	}
	id, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		p.warn("initialize: %q is not a system identifier", clip(v))
	}
	p.SystemID = id
}

// Patroni's defaults (patroni/config.py).
const (
	defaultTTL          = 30 * time.Second
	defaultLoopWait     = 10 * time.Second
	defaultRetryTimeout = 10 * time.Second
)

func (p *parser) config(v string) {
	f := p.object("config", v)
	p.TTL = f.seconds("ttl", defaultTTL)
	p.LoopWait = f.seconds("loop_wait", defaultLoopWait)
	p.RetryTimeout = f.seconds("retry_timeout", defaultRetryTimeout)
	p.Paused = f.boolean("pause")
	p.Failsafe = f.boolean("failsafe_mode")
	standby, _ := f.values["standby_cluster"].(map[string]any)
	for _, k := range []string{"host", "port", "restore_command"} {
		if v := standby[k]; v != nil && v != "" {
			p.StandbyCluster = true
		}
	}
}

// status replaces "optime/leader" since 2.1.0; the old key stays behind after an upgrade.
func (p *parser) status(nodes map[string]dcs.Node) {
	if n, ok := nodes["status"]; ok {
		if strings.HasPrefix(strings.TrimSpace(n.Value), "{") {
			p.Optime = p.object("status", n.Value).uint("optime", 64)
			return
		}
		p.Optime = p.lsn("status", n.Value)
		return
	}
	if n, ok := nodes["optime/leader"]; ok {
		p.Optime = p.lsn("optime/leader", n.Value)
	}
}

func (p *parser) lsn(key, v string) uint64 {
	l, err := strconv.ParseUint(strings.TrimSpace(v), 10, 64)
	if err != nil {
		p.warn("%s: %q is not an LSN", key, clip(v))
	}
	return l
}

// history holds rows [timeline, lsn, reason, time, leader]; the last two came with
// Patroni 1.4 and 2.1.1.
func (p *parser) history(v string) {
	if v == "" {
		return
	}
	var rows []any
	if err := decode(v, &rows); err != nil {
		p.warn("history: %v", err)
		return
	}
	for i, r := range rows {
		row, _ := r.([]any)
		if len(row) < 3 {
			p.warn("history: row %d has fewer than 3 columns", i)
			continue
		}
		timeline, ok1 := number(row[0], 32)
		lsn, ok2 := number(row[1], 64)
		if !ok1 || !ok2 || timeline == 0 {
			p.warn("history: row %d has no timeline and LSN", i)
			continue
		}
		e := HistoryEntry{Timeline: uint32(timeline), LSN: lsn}
		e.Reason, _ = row[2].(string)
		if len(row) > 3 {
			e.Time = p.time(i, row[3])
		}
		if len(row) > 4 {
			e.Leader, _ = row[4].(string)
		}
		p.History = append(p.History, e)
	}
	slices.SortStableFunc(p.History, func(a, b HistoryEntry) int { return int(a.Timeline) - int(b.Timeline) })
}

// time reads what Python's isoformat writes; without an offset it is taken as UTC.
func (p *parser) time(row int, v any) time.Time {
	s, _ := v.(string)
	if s == "" {
		return time.Time{}
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999Z07:00"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t
		}
	}
	p.warn("history: row %d: %q is not a time", row, clip(s))
	return time.Time{}
}

func (p *parser) member(name, v string) Member {
	m := Member{Name: name}
	if v = strings.TrimSpace(v); strings.HasPrefix(v, "postgres") {
		p.legacy(&m, v)
		return m
	}
	f := p.object("members/"+name, v)
	m.ConnURL = f.text("conn_url")
	m.APIURL = f.text("api_url")
	m.State = f.text("state")
	m.Role = normaliseRole(f.text("role"))
	m.Timeline = uint32(f.uint("timeline", 32))
	m.LSN = f.uint("xlog_location", 64)
	m.ReceiveLSN = f.uint("receive_lsn", 64)
	m.ReplayLSN = f.uint("replay_lsn", 64)
	m.Version = f.text("version")
	m.ReplicationState = f.text("replication_state")
	m.Paused = f.boolean("pause")
	m.PendingRestart = f.boolean("pending_restart")
	m.Tags, _ = f.values["tags"].(map[string]any)
	p.address(&m)
	return m
}

// legacy reads the bare URL that Governor wrote, with the REST API's address in
// application_name (patroni/dcs/__init__.py, parse_connection_string).
func (p *parser) legacy(m *Member, v string) {
	u, err := url.Parse(v)
	if err != nil {
		p.warn("members/%s: not a URL", m.Name) // it may hold a password
		return
	}
	m.APIURL = u.Query().Get("application_name")
	u.RawQuery, u.User = "", nil
	m.ConnURL = u.String()
	p.address(m)
}

func (p *parser) address(m *Member) {
	if m.ConnURL == "" {
		return
	}
	u, err := url.Parse(m.ConnURL)
	if err != nil || u.Hostname() == "" {
		p.warn("members/%s: conn_url has no host", m.Name)
		return
	}
	m.Host, m.Port = u.Hostname(), 5432
	if s := u.Port(); s != "" {
		m.Port, _ = strconv.Atoi(s) // url.Parse lets digits pass only
	}
}

func normaliseRole(r string) string {
	if r == "master" { // up to Patroni 3.3
		return "primary"
	}
	return r
}

// fields reads one JSON object field by field, so that one strange value does not cost
// the others.
type fields struct {
	p      *parser
	key    string
	values map[string]any
}

func (p *parser) object(key, v string) fields {
	f := fields{p: p, key: key}
	if strings.TrimSpace(v) == "" {
		return f
	}
	if err := decode(v, &f.values); err != nil {
		p.warn("%s: %v", key, err)
		f.values = nil
	}
	return f
}

func (f fields) warn(name, want string) {
	f.p.warn("%s: %s is not %s", f.key, name, want)
}

func (f fields) text(name string) string {
	v, ok := f.values[name].(string)
	if !ok && f.values[name] != nil {
		f.warn(name, "a string")
	}
	return v
}

// uint reads a number, or a string with one: Kubernetes annotations are strings.
func (f fields) uint(name string, bits int) uint64 {
	if f.values[name] == nil {
		return 0
	}
	n, ok := number(f.values[name], bits)
	if !ok {
		f.warn(name, "a number")
	}
	return n
}

func (f fields) seconds(name string, otherwise time.Duration) time.Duration {
	if f.values[name] == nil {
		return otherwise
	}
	n, ok := number(f.values[name], 31)
	if !ok || n == 0 {
		f.warn(name, "a number of seconds")
		return otherwise
	}
	return time.Duration(n) * time.Second
}

func (f fields) boolean(name string) bool {
	switch v := f.values[name].(type) {
	case nil:
		return false
	case bool:
		return v
	case json.Number:
		return v.String() != "0"
	case string:
		switch strings.ToLower(v) { // Patroni's parse_bool
		case "true", "yes", "on", "1":
			return true
		case "false", "no", "off", "0", "":
			return false
		}
	}
	f.warn(name, "a boolean")
	return false
}

func number(v any, bits int) (uint64, bool) {
	var s string
	switch v := v.(type) {
	case json.Number:
		s = v.String()
	case string:
		s = strings.TrimSpace(v)
	default:
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, bits)
	if err != nil {
		return 0, false
	}
	return n, true
}

// decode keeps numbers as they are written: an LSN does not fit into a float64.
func decode(v string, into any) error {
	d := json.NewDecoder(strings.NewReader(v))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("%q is not the JSON expected", clip(v))
	}
	return nil
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "..."
	}
	return s
}
