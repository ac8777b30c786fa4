//go:build servers

package etcd

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/walbaton/walbaton/leader/dcs"
)

// administrator turns authentication on, with one user who may do what Patroni's may.
func administrator(t *testing.T, raw *clientv3.Client) {
	t.Helper()
	steps := []func(ctx context.Context) error{
		func(ctx context.Context) error { _, err := raw.UserAdd(ctx, "root", "top secret"); return err },
		func(ctx context.Context) error { _, err := raw.UserGrantRole(ctx, "root", "root"); return err },
		func(ctx context.Context) error { _, err := raw.UserAdd(ctx, "patroni", "pa$s"); return err },
		func(ctx context.Context) error { _, err := raw.RoleAdd(ctx, "batman"); return err },
		func(ctx context.Context) error {
			_, err := raw.RoleGrantPermission(ctx, "batman", "/service/batman/", clientv3.GetPrefixRangeEnd("/service/batman/"),
				clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func(ctx context.Context) error { _, err := raw.UserGrantRole(ctx, "patroni", "batman"); return err },
		func(ctx context.Context) error { _, err := raw.AuthEnable(ctx); return err },
	}
	for i, step := range steps {
		err := step(soon(t))
		if i == 1 && err != nil { // the role root has to be made first on old servers
			if _, err = raw.RoleAdd(soon(t), "root"); err == nil {
				err = step(soon(t))
			}
		}
		if err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
}

func TestAuth(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	administrator(t, s.raw(t))
	c := Config{Endpoints: []string{s.url}, Prefix: "/service/batman/", Username: "patroni", Password: "pa$s"}
	d := open(t, c)
	var logins atomic.Int32
	d.config.DialOptions = append(d.config.DialOptions, grpc.WithChainUnaryInterceptor(
		func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			if strings.HasSuffix(method, "/Authenticate") {
				logins.Add(1)
			}
			return invoke(ctx, method, req, reply, cc, opts...)
		}))
	l, err := d.Claim(soon(t), dcs.Lease{Holder: "n1", TTL: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	everything := func() {
		t.Helper()
		if _, err := d.Claim(soon(t), l); err != nil {
			t.Fatal(err)
		}
		if err := d.Announce(soon(t), "n1", "1", 10*time.Second); err != nil {
			t.Fatal(err)
		}
		r, err := d.Read(soon(t))
		if err != nil || r.Baton.Holder != "n1" {
			t.Fatal(r, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := d.Wait(ctx, r); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	}
	for range 20 {
		everything()
	}
	// One for the client, one for each stream: two renewals and a watch that was cut once.
	if n := logins.Load(); n > 6 {
		t.Errorf("%d logins in 20 rounds", n)
	}
	s.Kill(t) // its login tokens are in memory only
	s.Start(t)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		_, err := d.Claim(soon(t), l)
		if err == nil {
			break
		}
		if time.Now().After(end) || errors.Is(err, dcs.ErrLost) {
			t.Fatalf("after the restart: %v", err)
		}
	}
	everything()
	if err := d.Release(soon(t), l); err != nil {
		t.Error(err)
	}

	for name, change := range map[string]func(c *Config){
		"wrong password": func(c *Config) { c.Password = "x" },
		"no user":        func(c *Config) { c.Username, c.Password = "", "" },
		"other scope":    func(c *Config) { c.Prefix = "/service/batman2/" },
	} {
		bad := c
		change(&bad)
		_, err := open(t, bad).Read(soon(t))
		if err == nil || strings.Contains(err.Error(), "pa$s") {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.Hang(t)
	defer s.Resume(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := open(t, c).Read(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 2*time.Second {
		t.Errorf("first call to a hung server: %v after %v", err, time.Since(start))
	}
}
