package rest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// said is what one Patroni answered.
type said struct {
	asked   string // its member name; "" when an old one of another node does not say it
	status  status
	cluster cluster
	config  json.RawMessage // nil: there is none yet
	history json.RawMessage
}

// status is the part of GET /patroni that a member key would have, and what only it has.
type status struct {
	State            string          `json:"state"`
	Role             string          `json:"role"`
	Timeline         uint32          `json:"timeline"`
	ReplicationState string          `json:"replication_state"`
	PendingRestart   any             `json:"pending_restart"`
	Pause            any             `json:"pause"`
	Tags             json.RawMessage `json:"tags"`
	XLog             struct {
		Location uint64 `json:"location"`
		Received uint64 `json:"received_location"`
		Replayed uint64 `json:"replayed_location"`
	} `json:"xlog"`
	SystemID    string  `json:"database_system_identifier"`
	DCSLastSeen float64 `json:"dcs_last_seen"` // seconds since 1970 by its own clock
	Patroni     struct {
		Version string `json:"version"`
		Scope   string `json:"scope"`
		Name    string `json:"name"` // since 3.2
	} `json:"patroni"`
}

// cluster is GET /cluster.
type cluster struct {
	Members []member `json:"members"`
	Pause   bool     `json:"pause"`
}

// member is one of /cluster. Its state is the replication state of a replica since 3.0.4.
type member struct {
	Name           string          `json:"name"`
	Role           string          `json:"role"` // leader, standby_leader, sync_standby, quorum_standby, replica
	State          string          `json:"state"`
	APIURL         string          `json:"api_url"`
	Host           string          `json:"host"`
	Port           int             `json:"port"`
	Timeline       uint32          `json:"timeline"`
	PendingRestart any             `json:"pending_restart,omitempty"`
	Tags           json.RawMessage `json:"tags,omitempty"`
	LSN            any             `json:"lsn,omitempty"` // since 4.1: X/X, or "unknown"; not the leader's
}

func (m member) leads() bool { return m.Role == "leader" || m.Role == "standby_leader" }

// revision stands for all of c but LSNs.
func (c cluster) revision() string {
	c.Members = append([]member(nil), c.Members...)
	for i := range c.Members {
		c.Members[i].LSN = nil
	}
	b, _ := json.Marshal(c) // it came from JSON
	h := fnv.New64a()
	h.Write(b)
	return strconv.FormatUint(h.Sum64(), 16)
}

// nodes gives the keys that Patroni would have written.
func (s said) nodes() map[string]string {
	out := map[string]string{}
	for _, m := range s.cluster.Members {
		if m.leads() {
			out["leader"] = m.Name
		}
		key := m.key()
		if m.Name == s.asked {
			s.status.overlay(key)
		}
		if s.cluster.Pause {
			key["pause"] = true
		}
		b, _ := json.Marshal(key) // it came from JSON
		out["members/"+m.Name] = string(b)
	}
	if s.status.SystemID != "" {
		out["initialize"] = s.status.SystemID
	}
	if len(s.config) > 0 {
		out["config"] = string(s.config)
	}
	if h := string(s.history); h != "" && h != "[]" && h != "null" {
		out["history"] = h
	}
	return out
}

// key is the value of the member's key, as far as /cluster tells.
func (m member) key() map[string]any {
	key := map[string]any{"state": m.State, "role": "replica"}
	switch {
	case m.Role == "leader":
		key["role"] = "primary"
	case m.Role == "standby_leader":
		key["role"] = m.Role
	}
	if m.State == "streaming" || m.State == "in archive recovery" {
		key["state"], key["replication_state"] = "running", m.State
	}
	if m.APIURL != "" {
		key["api_url"] = m.APIURL
	}
	if m.Host != "" {
		key["conn_url"] = "postgres://" + net.JoinHostPort(m.Host, strconv.Itoa(cmp.Or(m.Port, 5432))) + "/postgres"
	}
	if m.Timeline > 0 {
		key["timeline"] = m.Timeline
	}
	if m.PendingRestart != nil {
		key["pending_restart"] = m.PendingRestart
	}
	if len(m.Tags) > 0 {
		key["tags"] = m.Tags
	}
	if lsn, ok := parseLSN(m.LSN); ok {
		key["xlog_location"] = lsn
	}
	return key
}

// overlay puts over a member's key what the member itself says, which is newer.
func (st status) overlay(key map[string]any) {
	for name, v := range map[string]string{"state": st.State, "role": st.Role, "replication_state": st.ReplicationState, "version": st.Patroni.Version} {
		if v != "" {
			key[name] = v
		}
	}
	if st.Timeline > 0 {
		key["timeline"] = st.Timeline
	}
	if lsn := max(st.XLog.Location, st.XLog.Received, st.XLog.Replayed); lsn > 0 {
		key["xlog_location"] = lsn
	}
	if st.PendingRestart != nil {
		key["pending_restart"] = st.PendingRestart
	}
	if len(st.Tags) > 0 {
		key["tags"] = st.Tags
	}
}

// parseLSN reads PostgreSQL's way to write an LSN.
func parseLSN(v any) (uint64, bool) {
	s, _ := v.(string)
	hi, lo, ok := strings.Cut(s, "/")
	if !ok {
		return 0, false
	}
	h, err1 := strconv.ParseUint(hi, 16, 32)
	l, err2 := strconv.ParseUint(lo, 16, 32)
	return h<<32 | l, err1 == nil && err2 == nil
}

// errAbsent is Patroni's 502 for /config before the bootstrap.
var errAbsent = errors.New("there is none yet")

// maxAnswer bounds an answer in bytes.
const maxAnswer = 16 << 20

func (d *DCS) get(ctx context.Context, base, path string, into any) error {
	_, err := d.getDated(ctx, base, path, into)
	return err
}

// getDated says also when the server answered, by its own clock.
func (d *DCS) getDated(ctx context.Context, base, path string, into any) (time.Time, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
	if err != nil {
		return time.Time{}, err
	}
	resp, err := d.http.Do(req)
	if err != nil {
		return time.Time{}, err // names the method and the address
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch {
	case err != nil:
		return time.Time{}, fmt.Errorf("GET %s%s: %w", base, path, err)
	case resp.StatusCode == http.StatusBadGateway:
		return time.Time{}, fmt.Errorf("GET %s%s: %w", base, path, errAbsent)
	case resp.StatusCode != http.StatusOK:
		return time.Time{}, fmt.Errorf("GET %s%s: %s", base, path, resp.Status)
	}
	if err := json.Unmarshal(body, into); err != nil { // empty when this Patroni cannot read the DCS
		return time.Time{}, fmt.Errorf("GET %s%s: %q is not the JSON expected: %w", base, path, trim(body), err)
	}
	at, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		at = time.Now()
	}
	return at, nil
}
