//go:build servers

package sftp_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/sftp"
	"github.com/walbaton/walbaton/archiver/store/storetest"
	"github.com/walbaton/walbaton/archiver/store/storetest/servers"
)

const segment = 16 << 20

// through opens the store of a server behind a relay.
func through(t *testing.T, server *servers.SSH, o sftp.Options) (*sftp.Store, *storetest.Relay) {
	t.Helper()
	relay := storetest.NewRelay(t, server.Addresses[0])
	known := filepath.Join(t.TempDir(), "known_hosts")
	trust(t, server, known, relay.Address)
	url := strings.Replace(with(t, server.URL(0), "known_hosts_file", known), server.Addresses[0], relay.Address, 1)
	s, err := sftp.Open(url, o)
	if err != nil {
		t.Fatal(err)
	}
	return s, relay
}

func patient(s store.Store) store.Store {
	return store.Retry(store.Stall(s, 20*time.Second), store.Backoff{First: 10 * time.Millisecond, Max: 500 * time.Millisecond, Tries: 40})
}

// wantWhole checks that the only object is whole.
func wantWhole(t *testing.T, s store.Store, key string, want []byte) {
	t.Helper()
	var keys []string
	for info, err := range s.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	if len(keys) != 1 || keys[0] != key {
		t.Fatalf("got keys %q, want %s", keys, key)
	}
	r, err := s.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, %v, want %d", len(got), err, len(want))
	}
}

// Wherever the connection breaks, nothing half-written has a name, and the next try succeeds.
func TestCut(t *testing.T) {
	server := start(t, nil)
	s, relay := through(t, server, sftp.Options{})
	body := bytes.Repeat([]byte("0123456789abcdef"), segment/16)
	for i, after := range []int64{1, 1000, 3000, 5000, segment / 2, segment - 1, segment + 20<<10} {
		relay.CutAfter(after)
		key := "scope/key"
		if err := s.Put(t.Context(), key, bytes.NewReader(body)); err != nil {
			t.Logf("cut after %d bytes: %v", after, err)
			if isFact(err) {
				t.Errorf("cut after %d bytes: %v reads like a fact", after, err)
			}
		}
		if err := patient(s).Put(t.Context(), key, bytes.NewReader(body)); err != nil && !errors.Is(err, fs.ErrExist) {
			t.Fatal(err)
		}
		wantWhole(t, patient(s), key, body)
		if err := s.Delete(t.Context(), key); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
	// A body that is being read goes on.
	if err := s.Put(t.Context(), "key", bytes.NewReader(body)); err != nil {
		t.Fatal(err)
	}
	r, err := patient(s).Get(t.Context(), "key", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := make([]byte, segment)
	for n := 0; n < segment; n += segment / 8 {
		if _, err := io.ReadFull(r, got[n:n+segment/8]); err != nil {
			t.Fatal(err)
		}
		relay.Cut()
	}
	if !bytes.Equal(got, body) {
		t.Error("the bytes are not those that were put")
	}
}

func isFact(err error) bool {
	return errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, store.ErrNoRoot)
}

// A server that is killed in the middle of everything, and comes back, is used again.
func TestRestart(t *testing.T) {
	user, _, err := servers.Users()
	if err != nil {
		t.Fatal(err)
	}
	o := servers.SSHDOptions{Dir: folder(t), Accounts: []servers.Account{{User: user}}}
	server, err := servers.SSHD(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	o.Addresses = server.Addresses
	s := patient(open(t, server.URL(0)))
	body := bytes.Repeat([]byte("0123456789abcdef"), segment/16)
	var wg sync.WaitGroup
	for i := range 12 {
		key := "scope/" + string(rune('a'+i))
		wg.Go(func() {
			if err := s.Put(t.Context(), key, bytes.NewReader(body)); err != nil && !errors.Is(err, fs.ErrExist) {
				t.Error(err)
			}
		})
	}
	if err := server.Kill(); err != nil {
		t.Error(err)
	}
	if server, err = servers.SSHD(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	n := 0
	for info, err := range s.List(t.Context(), "scope/", "") {
		if err != nil {
			t.Fatal(err)
		}
		if info.Size != segment {
			t.Errorf("%s has %d bytes", info.Key, info.Size)
		}
		n++
	}
	if n != 12 {
		t.Errorf("got %d objects, want 12", n)
	}
	if err := server.Stop(); err != nil {
		t.Error(err)
	}
	_, err = open(t, server.URL(0)).Head(t.Context(), "scope/a")
	if err == nil || isFact(err) {
		t.Errorf("head on a server that is down: got %v, want an error without a kind", err)
	}
}

// A server that says nothing any more is noticed without any request having a deadline, and a request that is
// cancelled meanwhile ends soon.
func TestSilence(t *testing.T) {
	server := start(t, nil)
	s, relay := through(t, server, sftp.Options{Keepalive: 3 * time.Second})
	body := bytes.Repeat([]byte("0123456789abcdef"), segment/16)
	if err := s.Put(t.Context(), "before", bytes.NewReader(body)); err != nil {
		t.Fatal(err)
	}
	relay.Silence(true)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	for name, request := range map[string]func(ctx context.Context) error{
		"put":    func(ctx context.Context) error { return s.Put(ctx, "new", bytes.NewReader(body)) },
		"head":   func(ctx context.Context) error { _, err := s.Head(ctx, "before"); return err },
		"get":    func(ctx context.Context) error { _, err := s.Get(ctx, "before", 0, -1); return err },
		"delete": func(ctx context.Context) error { return s.Delete(ctx, "new") },
		"list": func(ctx context.Context) (err error) {
			for _, err = range s.List(ctx, "", "") {
			}
			return err
		},
	} {
		wg.Go(func() {
			began := time.Now()
			if err := request(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 10*time.Second {
				t.Errorf("%s with a deadline: got %v after %v", name, err, time.Since(began))
			}
		})
		wg.Go(func() {
			if err := request(t.Context()); err == nil || isFact(err) {
				t.Errorf("%s: got %v, want that the connection was lost", name, err)
			}
		})
	}
	wg.Wait()
	relay.Silence(false)
	if err := s.Delete(t.Context(), "before"); err != nil {
		t.Errorf("after the silence: %v", err)
	}
}

// A cancelled request takes nothing with it: others on the same connection go on, and it leaves no temp file.
func TestCancelOne(t *testing.T) {
	server := start(t, nil)
	s := open(t, server.URL(0))
	body := bytes.Repeat([]byte("0123456789abcdef"), segment/16)
	var wg sync.WaitGroup
	for i := range 16 {
		key := "scope/" + string(rune('a'+i))
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if i%2 == 0 {
				time.AfterFunc(time.Duration(i)*10*time.Millisecond, cancel)
			}
			err := s.Put(ctx, key, bytes.NewReader(body))
			if err != nil && (i%2 == 1 || !errors.Is(err, context.Canceled)) {
				t.Errorf("put %s: %v", key, err)
			}
		})
	}
	wg.Wait()
	temps, err := filepath.Glob(filepath.Join(server.Data, "scope", ".walbaton-*"))
	if err != nil || len(temps) > 0 {
		t.Errorf("temp files are left: %v, %v", temps, err)
	}
}

// Readers that nobody reads hold nothing up, also on a server that allows one session.
func TestManyReaders(t *testing.T) {
	for _, config := range [][]string{nil, {"MaxSessions 1"}, {"MaxSessions 3"}} {
		s := open(t, start(t, config).URL(0))
		body := bytes.Repeat([]byte("0123456789abcdef"), 1<<20/16)
		if err := s.Put(t.Context(), "key", bytes.NewReader(body)); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 30 {
			wg.Go(func() {
				r, err := s.Get(t.Context(), "key", 0, -1)
				if err != nil {
					t.Error(err)
					return
				}
				defer r.Close()
				if _, err := s.Head(t.Context(), "key"); err != nil {
					t.Error(err)
				}
				if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, body) {
					t.Errorf("got %d bytes, %v", len(got), err)
				}
			})
		}
		wg.Wait()
	}
}
