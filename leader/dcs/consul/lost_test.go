//go:build servers

package consul

import (
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/walbaton/walbaton/leader/dcs"
)

// losing loses the answer to the first transaction.
type losing struct {
	http.RoundTripper
	lost bool
}

func (l *losing) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.RoundTripper.RoundTrip(req)
	if err == nil && !l.lost && req.URL.Path == "/v1/txn" {
		l.lost = true
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		return nil, errors.New("connection reset by test")
	}
	return resp, err
}

// sessionsOf counts those of one member's baton.
func sessionsOf(t *testing.T, raw *api.Client, name string) int {
	t.Helper()
	list, _, err := raw.Session().List((&api.QueryOptions{}).WithContext(soon(t)))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, s := range list {
		if s.Name == name {
			n++
		}
	}
	return n
}

// wanted is what tests claim.
func wanted() dcs.Lease { return dcs.Lease{Holder: "n1", TTL: 30 * time.Second} }

// TestClaimAnswerLost: the claim that goes on with one whose answer was lost makes no second session. That it gets the baton is
// dcstest.Cut's.
func TestClaimAnswerLost(t *testing.T) {
	t.Parallel()
	s := startServer(t, quick)
	raw := s.raw(t)
	d := open(t, Config{Address: s.address, Prefix: prefixOf(t)})
	d.http.Transport = &losing{RoundTripper: d.http.Transport}
	if l, err := d.Claim(soon(t), wanted()); err == nil {
		t.Fatalf("claimed %+v without an answer", l)
	}
	r, err := d.Read(soon(t))
	if err != nil || r.Baton.Holder != "n1" {
		t.Fatalf("the claim was carried out, but %+v, %v", r.Baton, err)
	}
	l, err := d.Claim(soon(t), wanted())
	if err != nil || l.Epoch != r.Baton.Epoch {
		t.Fatalf("repeated: %+v, %v; want epoch %d", l, err, r.Baton.Epoch)
	}
	if got := sessionsOf(t, raw, "walbaton baton n1"); got != 1 {
		t.Errorf("%d sessions, want 1", got)
	}
	if err := d.Release(soon(t), l); err != nil {
		t.Fatal(err)
	}
	if got := sessionsOf(t, raw, "walbaton baton n1"); got != 0 {
		t.Errorf("%d sessions after the release, want none", got)
	}
}
