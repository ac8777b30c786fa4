//go:build servers

package consul

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/walbaton/walbaton/leader/dcs"
)

// network stands between one client and the server and may lose the answer to the next
// transaction, or carry it out late.
type network struct {
	http.RoundTripper
	mu   sync.Mutex
	next string // "", "lose", "late"
	late func() error
}

func (n *network) set(next string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.next = next
}

func (n *network) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Path != "/v1/txn" {
		return n.RoundTripper.RoundTrip(req)
	}
	n.mu.Lock()
	next := n.next
	n.next = ""
	n.mu.Unlock()
	gone := errors.New("connection reset by test")
	switch next {
	case "lose":
		resp, err := n.RoundTripper.RoundTrip(req)
		if err != nil {
			return nil, err
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		return nil, gone
	case "late":
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		n.late = func() error {
			again, err := http.NewRequest(req.Method, req.URL.String(), bytes.NewReader(body))
			if err != nil {
				return err
			}
			again.Header = req.Header
			resp, err := n.RoundTripper.RoundTrip(again)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusConflict {
				return errors.New(resp.Status)
			}
			_, err = io.Copy(io.Discard, resp.Body)
			return err
		}
		return nil, gone
	}
	return n.RoundTripper.RoundTrip(req)
}

func through(t *testing.T, s *server, prefix string) (*Client, *network) {
	d := open(t, Config{Address: s.address, Prefix: prefix})
	n := &network{RoundTripper: d.http.Transport}
	d.http.Transport = n
	return d, n
}

func (n *network) carryOut(t *testing.T) {
	t.Helper()
	if err := n.late(); err != nil {
		t.Fatal(err)
	}
}

func uncertain(t *testing.T, err error) {
	t.Helper()
	if err == nil || errors.Is(err, dcs.ErrLost) || errors.As(err, new(*dcs.HeldError)) {
		t.Fatalf("got %v, want an error that says nothing", err)
	}
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

// TestClaimAnswerLost is about P4: an answer that is lost must neither strand the baton nor
// give it twice.
func TestClaimAnswerLost(t *testing.T) {
	t.Parallel()
	s := startServer(t, quick)
	t.Run("the retry recognises its own key", func(t *testing.T) { retryRecognises(t, s) })
	t.Run("another process of the same name does not", func(t *testing.T) { anotherProcess(t, s) })
	t.Run("a claim carried out after the retry changes nothing", func(t *testing.T) { lateAfterRetry(t, s) })
	t.Run("a claim carried out after the baton went to another is void", func(t *testing.T) { lateAfterAnother(t, s) })
	t.Run("a release whose answer is lost has released", func(t *testing.T) { lostRelease(t, s) })
	t.Run("a release carried out late does not disturb the successor", func(t *testing.T) { lateRelease(t, s) })
}

// wanted is what the tests below claim.
func wanted() dcs.Lease { return dcs.Lease{Holder: "n1", TTL: 30 * time.Second} }

func retryRecognises(t *testing.T, s *server) {
	d, n := through(t, s, prefixOf(t))
	raw := s.raw(t)
	n.set("lose")
	_, err := d.Claim(soon(t), wanted())
	uncertain(t, err)
	r, err := d.Read(soon(t))
	if err != nil || r.Baton.Holder != "n1" {
		t.Fatalf("the claim was carried out, but %+v, %v", r.Baton, err)
	}
	l, err := d.Claim(soon(t), wanted())
	if err != nil || l.Epoch != r.Baton.Epoch {
		t.Fatalf("retry: %+v, %v; want epoch %d", l, err, r.Baton.Epoch)
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

func anotherProcess(t *testing.T, s *server) {
	d, n := through(t, s, prefixOf(t))
	n.set("lose")
	_, err := d.Claim(soon(t), dcs.Lease{Holder: "n1", TTL: time.Second})
	uncertain(t, err)
	other := open(t, Config{Address: s.address, Prefix: prefixOf(t)})
	var held *dcs.HeldError
	if _, err := other.Claim(soon(t), wanted()); !errors.As(err, &held) {
		t.Fatalf("got %v, want it held", err)
	}
	// ... and nobody renews it, so it is free after two of its TTLs.
	time.Sleep(4 * time.Second)
	if _, err := other.Claim(soon(t), wanted()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Claim(soon(t), wanted()); !errors.As(err, &held) {
		t.Errorf("the first one, later: %v, want it held", err)
	}
}

func lateAfterRetry(t *testing.T, s *server) {
	d, n := through(t, s, prefixOf(t))
	n.set("late")
	_, err := d.Claim(soon(t), wanted())
	uncertain(t, err)
	l, err := d.Claim(soon(t), wanted())
	if err != nil {
		t.Fatal(err)
	}
	n.carryOut(t)
	if got, err := d.Claim(soon(t), l); err != nil || got != l {
		t.Errorf("extension: %+v, %v", got, err)
	}
	if err := d.Release(soon(t), l); err != nil {
		t.Fatal(err)
	}
	n.carryOut(t) // its session has ended
	if r, err := d.Read(soon(t)); err != nil || r.Baton.Held() {
		t.Errorf("after the release and the late claim: %+v, %v", r.Baton, err)
	}
}

func lateAfterAnother(t *testing.T, s *server) {
	d, n := through(t, s, prefixOf(t))
	other := open(t, Config{Address: s.address, Prefix: prefixOf(t)})
	n.set("late")
	_, err := d.Claim(soon(t), wanted())
	uncertain(t, err)
	theirs, err := other.Claim(soon(t), dcs.Lease{Holder: "n2", TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Claim(soon(t), wanted()); !errors.As(err, new(*dcs.HeldError)) {
		t.Fatalf("retry: %v, want it held", err)
	}
	if err := other.Release(soon(t), theirs); err != nil {
		t.Fatal(err)
	}
	n.carryOut(t) // its session was ended with the answer that n2 holds it
	if r, err := d.Read(soon(t)); err != nil || r.Baton.Held() {
		t.Errorf("after the late claim: %+v, %v", r.Baton, err)
	}
}

func lostRelease(t *testing.T, s *server) {
	d, n := through(t, s, prefixOf(t))
	l, err := d.Claim(soon(t), wanted())
	if err != nil {
		t.Fatal(err)
	}
	n.set("lose")
	uncertain(t, d.Release(soon(t), l))
	if r, err := d.Read(soon(t)); err != nil || r.Baton.Held() {
		t.Errorf("the release was carried out, but %+v, %v", r.Baton, err)
	}
	if next, err := d.Claim(soon(t), wanted()); err != nil || next.Epoch <= l.Epoch {
		t.Errorf("the next claim: %+v, %v", next, err)
	}
}

func lateRelease(t *testing.T, s *server) {
	d, n := through(t, s, prefixOf(t))
	l, err := d.Claim(soon(t), dcs.Lease{Holder: "n1", TTL: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	n.set("late")
	uncertain(t, d.Release(soon(t), l))
	time.Sleep(4 * time.Second)
	other := open(t, Config{Address: s.address, Prefix: prefixOf(t)})
	next, err := other.Claim(soon(t), dcs.Lease{Holder: "n2", TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	n.carryOut(t)
	if got, err := other.Claim(soon(t), next); err != nil || got != next {
		t.Errorf("after the late release: %+v, %v", got, err)
	}
}

func TestLateRecord(t *testing.T) {
	t.Parallel()
	s := startServer(t, quick)
	d, n := through(t, s, "service/batman/")
	say := func(v string) error { return d.Announce(soon(t), "n1", v, time.Minute) }
	value := func() string {
		r, err := d.Read(soon(t))
		if err != nil {
			t.Fatal(err)
		}
		return r.Records["n1"].Value
	}
	for i, loss := range []string{"late", "lose", "late"} {
		n.set(loss)
		uncertain(t, say("old"))
		if err := say("new"); err != nil {
			t.Fatal(err)
		}
		if loss == "late" {
			n.carryOut(t)
		}
		if got := value(); got != "new" {
			t.Errorf("round %d, %s: record %q, want the newer one", i, loss, got)
		}
		// The value before the loss is not taken for the present one.
		n.set("lose")
		uncertain(t, say("other"))
		if err := say("new"); err != nil || value() != "new" {
			t.Errorf("round %d: record %q, %v; want it written again", i, value(), err)
		}
	}
}
