package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/leader/dcs"
)

func TestNew(t *testing.T) {
	good := Config{Endpoints: []string{"http://h1:2379", "http://h2:2379"}, Prefix: "/service/batman/", Username: "u", Password: "secret"}
	d, err := New(good)
	if err != nil {
		t.Fatal(err)
	}
	if got := d.String(); got != "etcd h1:2379,h2:2379/service/batman/" {
		t.Errorf("name %q", got)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	junk := filepath.Join(t.TempDir(), "junk.pem")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	https := []string{"https://h:2379"}
	for name, change := range map[string]func(c *Config){
		"no endpoints":        func(c *Config) { c.Endpoints = nil },
		"no scheme":           func(c *Config) { c.Endpoints = []string{"h:2379"} },
		"another scheme":      func(c *Config) { c.Endpoints = []string{"ftp://h:2379"} },
		"password in the URL": func(c *Config) { c.Endpoints = []string{"http://u:secret@h:2379"} },
		"mixed schemes":       func(c *Config) { c.Endpoints = append(https, "http://h:2379") },
		"no slash in front":   func(c *Config) { c.Prefix = "service/batman/" },
		"no slash behind":     func(c *Config) { c.Prefix = "/service/batman" },
		"everything":          func(c *Config) { c.Prefix = "/" },
		"no such authority":   func(c *Config) { c.Endpoints, c.CACert = https, "/does/not/exist" },
		"junk authority":      func(c *Config) { c.Endpoints, c.CACert = https, junk },
		"junk certificate":    func(c *Config) { c.Endpoints, c.Cert = https, junk },
	} {
		c := good
		change(&c)
		if _, err := New(c); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want an error without the password", name, err)
		}
	}
}

func TestBatonValue(t *testing.T) {
	for _, holder := range []string{"n1", `a"b\c`, "größe", "\U0001f418", "a\x7f\n"} {
		v := baton{Holder: holder, TTL: 15, Token: "x"}.value()
		var got baton
		if err := json.Unmarshal([]byte(v), &got); err != nil || got.Holder != holder || dcs.CheckValue(v) != nil {
			t.Errorf("%q became %s: %+v, %v, %v", holder, v, got, err, dcs.CheckValue(v))
		}
	}
}

func TestSeconds(t *testing.T) {
	for d, want := range map[time.Duration]int64{time.Nanosecond: 1, time.Second: 1, 1001 * time.Millisecond: 2, 15 * time.Second: 15} {
		if got := seconds(d); got != want {
			t.Errorf("%v: %d, want %d", d, got, want)
		}
	}
}

func TestDiscover(t *testing.T) {
	ctx := t.Context()
	records := map[string][]*net.SRV{
		"etcd-client-ssl.a":      {{Target: "h1.a.", Port: 2379}, {Target: "h2.a.", Port: 2380}},
		"etcd-client.a":          {{Target: "plain.a.", Port: 2379}},
		"etcd-client.b":          {{Target: "h.b.", Port: 1}},
		"etcd-blue.c":            {{Target: "h.c.", Port: 1}},
		"etcd-client-ssl-blue.d": {{Target: "h.d.", Port: 1}},
	}
	lookup := func(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
		if r, ok := records[service+"."+name]; ok && proto == "tcp" {
			return "", r, nil
		}
		return "", nil, &net.DNSError{IsNotFound: true, Err: "none"}
	}
	for _, c := range []struct {
		domain, suffix string
		want           []string
	}{
		{"a", "", []string{"https://h1.a:2379", "https://h2.a:2380"}},
		{"b", "", []string{"http://h.b:1"}},
		{"c", "blue", []string{"http://h.c:1"}},
		{"d", "blue", []string{"https://h.d:1"}},
		{"d", "", nil},
	} {
		got, err := Discover(ctx, lookup, c.domain, c.suffix)
		if !slices.Equal(got, c.want) || (err == nil) != (c.want != nil) {
			t.Errorf("%s %s: %v, %v; want %v", c.domain, c.suffix, got, err, c.want)
		}
	}
	broken := errors.New("server failure")
	_, err := Discover(ctx, func(context.Context, string, string, string) (string, []*net.SRV, error) { return "", nil, broken }, "a", "")
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want the resolver's error", err)
	}
}
