package consul

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/leader/dcs"
)

func TestNew(t *testing.T) {
	good := Config{Address: "h1:8500", Prefix: "service/batman/", Token: "secret"}
	d, err := New(good)
	if err != nil {
		t.Fatal(err)
	}
	if got := d.String(); got != "consul h1:8500/service/batman/" {
		t.Errorf("name %q", got)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	junk := filepath.Join(t.TempDir(), "junk.pem")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(c *Config){
		"no address":        func(c *Config) { c.Address = "" },
		"no port":           func(c *Config) { c.Address = "h1" },
		"another scheme":    func(c *Config) { c.Scheme = "unix" },
		"slash in front":    func(c *Config) { c.Prefix = "/service/batman/" },
		"no slash behind":   func(c *Config) { c.Prefix = "service/batman" },
		"everything":        func(c *Config) { c.Prefix = "/" },
		"no such authority": func(c *Config) { c.Scheme, c.CACert = "https", "/does/not/exist" },
		"junk authority":    func(c *Config) { c.Scheme, c.CACert = "https", junk },
		"junk certificate":  func(c *Config) { c.Scheme, c.Cert = "https", junk },
	} {
		c := good
		change(&c)
		if _, err := New(c); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want an error without the token", name, err)
		}
	}
}

func TestBatonValue(t *testing.T) {
	for _, holder := range []string{"n1", `a"b\c`, "größe", "\U0001f418", "a\x7f\n"} {
		v := baton{Holder: holder, TTL: 15}.value()
		var got baton
		if err := json.Unmarshal(v, &got); err != nil || got.Holder != holder || dcs.CheckValue(string(v)) != nil {
			t.Errorf("%q became %s: %+v, %v, %v", holder, v, got, err, dcs.CheckValue(string(v)))
		}
	}
}

func TestSeconds(t *testing.T) {
	for d, want := range map[time.Duration]string{time.Nanosecond: "1s", time.Second: "1s", 1001 * time.Millisecond: "2s", 15 * time.Second: "15s"} {
		if got := seconds(d).String(); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func TestLeastTTL(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"Unexpected response code: 500 (Invalid Session TTL '1000000000', must be between [10s=24h0m0s])": 10 * time.Second,
		"Invalid Session TTL '1', must be between [1m30s=24h0m0s]":                                        90 * time.Second,
		"Invalid Session TTL '1', must be longer":                                                         0,
		"No cluster leader [10s=1]":                                                                       0,
	} {
		if got := leastTTL(errors.New(text)); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
	if got := leastTTL(nil); got != 0 {
		t.Errorf("got %v", got)
	}
}
