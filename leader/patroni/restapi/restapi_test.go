package restapi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/leader/patroni"
)

// fakePatroni answers as Patroni 3.0 and 3.3 do (seen), and remembers what it was told.
type fakePatroni struct {
	answers map[string]string // "GET /patroni": body; "POST /restart": "503 text"
	told    []string          // "PATCH /config {...}"
	user    string
}

func (f *fakePatroni) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	if r.Method != http.MethodGet {
		if user, password, _ := r.BasicAuth(); user+":"+password != f.user && f.user != "" {
			http.Error(w, "not authenticated", http.StatusUnauthorized)
			return
		}
		f.told = append(f.told, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+string(b)))
	} else if _, _, has := r.BasicAuth(); has {
		http.Error(w, "a password where none is needed", http.StatusBadRequest)
		return
	}
	answer := f.answers[r.Method+" "+r.URL.Path]
	if code, text, ok := strings.Cut(answer, " "); ok && len(code) == 3 && code[0] > '1' && code[0] < '6' {
		w.WriteHeader(map[string]int{"200": 200, "502": 502, "503": 503, "412": 412}[code])
		answer = text
	}
	_, _ = io.WriteString(w, answer)
}

func open(t *testing.T, f *fakePatroni, c Config) (*Client, string) {
	t.Helper()
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	client, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client, server.URL
}

func TestAsk(t *testing.T) {
	f := &fakePatroni{answers: map[string]string{
		"GET /patroni": `{"state": "running", "role": "master", "server_version": 150015, "timeline": 3, "xlog": {"location": 67108864},
			"replication": [{"application_name": "n2", "client_addr": "10.0.0.2", "state": "streaming"}, {"application_name": "n3", "state": "catchup"}], "pending_restart": true,
			"pending_restart_reason": {"archive_mode": {"old_value": "on", "new_value": "always"}},
			"database_system_identifier": "7710597796492160055", "patroni": {"version": "3.3.0", "scope": "shop", "name": "n1"}}`,
		"GET /cluster": `{"members": [
			{"name": "n1", "role": "leader", "state": "running", "api_url": "http://10.0.0.1:8008/patroni", "host": "10.0.0.1", "port": 5432, "timeline": 3, "pending_restart": true},
			{"name": "n2", "role": "replica", "state": "streaming", "api_url": "http://10.0.0.2:8008/patroni", "host": "10.0.0.2", "port": 5432, "timeline": 3, "lag": 0},
			{"name": "n3", "role": "replica", "state": "stopped", "host": "10.0.0.3", "lag": "unknown"}], "pause": true}`,
		"GET /config": `{"ttl": 30, "postgresql": {"parameters": {"archive_mode": "on"}}}`,
	}}
	c, base := open(t, f, Config{Username: "admin", Password: "secret"}) // not sent with questions
	n, err := c.Node(t.Context(), base)
	if err != nil {
		t.Fatal(err)
	}
	if n.Role != "primary" || !n.Running() || n.Timeline != 3 || n.Patroni.Scope != "shop" || !n.Pending || n.SystemID != "7710597796492160055" || n.XLog.Location != 67108864 {
		t.Errorf("got %+v", n)
	}
	if !n.Streams("n2") || n.Streams("n3") || n.Streams("n4") {
		t.Errorf("got %+v, want n2 to stream alone", n.Replication)
	}
	if got, want := n.PendingSettings(), []string{"archive_mode"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v pending, want %v", got, want)
	}
	cl, err := c.Cluster(t.Context(), base)
	if err != nil {
		t.Fatal(err)
	}
	lead, ok := cl.Leader()
	if !ok || lead.Name != "n1" || lead.URL != "http://10.0.0.1:8008" || !lead.Pending || !cl.Paused || len(cl.Members) != 3 {
		t.Errorf("got %+v", cl)
	}
	var healthy []bool
	for _, m := range cl.Members {
		healthy = append(healthy, m.Healthy())
	}
	if want := []bool{true, true, false}; !reflect.DeepEqual(healthy, want) {
		t.Errorf("got healthy %v, want %v", healthy, want)
	}
	d, err := c.Dynamic(t.Context(), base)
	if err != nil || d["ttl"] != 30.0 {
		t.Errorf("got %v, %v", d, err)
	}
}

func TestTell(t *testing.T) {
	f := &fakePatroni{user: "admin:secret", answers: map[string]string{
		"PATCH /config":    `{"ttl": 20}`,
		"POST /switchover": `200 Successfully switched over to "n2"`,
	}}
	c, base := open(t, f, Config{Username: "admin", Password: "secret"})
	d, err := c.Patch(t.Context(), base, map[string]any{"ttl": 20, "maximum_lag_on_failover": nil})
	if err != nil || d["ttl"] != 20.0 {
		t.Errorf("got %v, %v", d, err)
	}
	if err := c.Restart(t.Context(), base, true); err != nil {
		t.Error(err)
	}
	says, err := c.Switchover(t.Context(), base, "n1", "n2")
	if err != nil || says != `Successfully switched over to "n2"` {
		t.Errorf("got %q, %v", says, err)
	}
	want := []string{`PATCH /config {"maximum_lag_on_failover":null,"ttl":20}`, `POST /restart {"restart_pending":true}`, `POST /switchover {"candidate":"n2","leader":"n1"}`}
	if !reflect.DeepEqual(f.told, want) {
		t.Errorf("told %q, want %q", f.told, want)
	}
}

func TestRefused(t *testing.T) {
	f := &fakePatroni{user: "admin:secret", answers: map[string]string{
		"GET /config":      `502 {}`,
		"POST /switchover": "503 Switchover status unknown",
		"GET /cluster":     "<html>",
	}}
	c, base := open(t, f, Config{Username: "admin", Password: "secret"})
	if _, err := c.Dynamic(t.Context(), base); !errors.Is(err, ErrNoConfig) {
		t.Errorf("got %v, want %v", err, ErrNoConfig)
	}
	if _, err := c.Cluster(t.Context(), base); err == nil || !strings.Contains(err.Error(), "this is no Patroni") {
		t.Errorf("got %v", err)
	}
	_, err := c.Switchover(t.Context(), base, "n1", "")
	var se *StatusError
	if !errors.As(err, &se) || !se.Unsure() || !strings.Contains(err.Error(), "switch over: "+base+"/switchover: Patroni answers 503: Switchover status unknown") {
		t.Errorf("got %v", err)
	}
	stranger, _ := New(Config{Username: "admin", Password: "wrong"})
	defer stranger.Close()
	if err := stranger.Restart(t.Context(), base, false); err == nil || !strings.Contains(err.Error(), "user name or password (restapi.authentication) refused") {
		t.Errorf("got %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Node(ended, base); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want a cancelled context", err)
	}
}

func TestConfigOf(t *testing.T) {
	p := patroni.Config{RestAPI: patroni.RestAPI{Username: "u", Password: "p", CertFile: "server.crt", KeyFile: "server.key", CAFile: "ca.crt"}}
	if got, want := ConfigOf(p), (Config{CACert: "ca.crt", Cert: "server.crt", Key: "server.key", Username: "u", Password: "p"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	p.Ctl = patroni.Ctl{CACert: "ctl-ca.crt", CertFile: "ctl.crt", KeyFile: "ctl.key", Insecure: true}
	if got, want := ConfigOf(p), (Config{CACert: "ctl-ca.crt", Cert: "ctl.crt", Key: "ctl.key", Insecure: true, Username: "u", Password: "p"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestUnreached: who typed the wrong address reads which one, and why it does not answer, and no names of calls.
func TestUnreached(t *testing.T) {
	client, base := open(t, &fakePatroni{}, Config{})
	gone := httptest.NewServer(nil)
	gone.Close()
	_, err := client.Cluster(t.Context(), gone.URL)
	if want := "ask for the members: " + strings.TrimPrefix(gone.URL, "http://") + ": connection refused"; err == nil || err.Error() != want {
		t.Errorf("nobody listens: got %v, want %s", err, want)
	}
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer slow.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = client.Node(ctx, slow.URL)
	if want := "ask member: " + strings.TrimPrefix(slow.URL, "http://") + ": no answer in time"; err == nil || err.Error() != want || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no answer: got %v, want %s", err, want)
	}
	if _, err = client.Node(t.Context(), base); err == nil || !strings.Contains(err.Error(), "this is no Patroni") {
		t.Errorf("an empty answer: got %v", err)
	}
}
