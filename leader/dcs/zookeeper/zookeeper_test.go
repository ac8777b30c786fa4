package zookeeper

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/leader/dcs"
)

func TestNew(t *testing.T) {
	good := Config{Hosts: []string{"h1:2181", "[fd00::1]:2181"}, Chroot: "/prod", Prefix: "/service/batman/", Auth: []Auth{{"digest", "u:secret"}}}
	d, err := New(good)
	if err != nil {
		t.Fatal(err)
	}
	if got := d.String(); got != "zookeeper h1:2181,[fd00::1]:2181/prod/service/batman/" {
		t.Errorf("name %q", got)
	}
	if got := d.baton(); got != "/prod/walbaton/service/batman/baton" {
		t.Errorf("baton %q", got)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if _, err := d.Read(t.Context()); !errors.Is(err, errClosed) {
		t.Errorf("a closed client reads: %v", err)
	}
	junk := filepath.Join(t.TempDir(), "junk.pem")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(c *Config){
		"no hosts":          func(c *Config) { c.Hosts = nil },
		"no port":           func(c *Config) { c.Hosts = []string{"h"} },
		"no slash in front": func(c *Config) { c.Prefix = "service/batman/" },
		"no slash behind":   func(c *Config) { c.Prefix = "/service/batman" },
		"everything":        func(c *Config) { c.Prefix = "/" },
		"chroot":            func(c *Config) { c.Chroot = "prod" },
		"no such authority": func(c *Config) { c.TLS = &TLS{CACert: "/does/not/exist"} },
		"junk authority":    func(c *Config) { c.TLS = &TLS{CACert: junk} },
		"junk certificate":  func(c *Config) { c.TLS = &TLS{Cert: junk} },
		"junk key":          func(c *Config) { c.TLS = &TLS{Cert: junk, Key: junk, KeyPassword: "secret"} },
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
		v := string(baton{Holder: holder, TTL: 1.5}.value())
		var got baton
		if err := json.Unmarshal([]byte(v), &got); err != nil || got.Holder != holder || dcs.CheckValue(v) != nil {
			t.Errorf("%q became %s: %+v, %v, %v", holder, v, got, err, dcs.CheckValue(v))
		}
		if l := batonOf(item{node: dcs.Node{Value: v, Token: 7}}); l != (dcs.Lease{Holder: holder, TTL: 1500 * time.Millisecond, Epoch: 7}) {
			t.Errorf("%s is read as %+v", v, l)
		}
	}
	if l := batonOf(item{node: dcs.Node{Value: "junk", Token: 7}}); !l.Held() {
		t.Errorf("junk is read as %+v, want it held", l)
	}
}

func TestRecordPath(t *testing.T) {
	d, err := New(Config{Hosts: []string{"h:1"}, Prefix: "/s/b/"})
	if err != nil {
		t.Fatal(err)
	}
	for member, want := range map[string]string{"n1": "n1", "a/b ü": "a%2Fb%20%C3%BC", ".": "%2E", "..": "%2E%2E", "n.1": "n.1", "x\x00": "x%00"} {
		if got := strings.TrimPrefix(d.record(member), "/walbaton/s/b/records/"); got != want {
			t.Errorf("%q: %s, want %s", member, got, want)
		}
	}
}

func TestDiscover(t *testing.T) {
	answer := `{"servers":["z1","z2"],"port":2181}`
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/exhibitor/v1/cluster/list" {
			http.NotFound(w, r)
			return
		}
		w.Write([]byte(answer))
	}))
	defer s.Close()
	address := s.Listener.Addr().String()
	got, err := Discover(t.Context(), s.Client(), []string{"127.0.0.1:1", address})
	if want := []string{"z1:2181", "z2:2181"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	for _, answer = range []string{`{"servers":[],"port":2181}`, `{"servers":["z1"]}`, `junk`} {
		if got, err := Discover(t.Context(), s.Client(), []string{address}); err == nil {
			t.Errorf("%s: %v", answer, got)
		}
	}
	if _, err := Discover(t.Context(), s.Client(), nil); err == nil {
		t.Error("nobody was asked, and there is no error")
	}
}

// TestDecryptKey reads one key as OpenSSL 3 has encrypted it in several ways, with the password p$s.
func TestDecryptKey(t *testing.T) {
	files, err := filepath.Glob("testdata/*.pem")
	if err != nil || len(files) < 8 {
		t.Fatal(files, err)
	}
	want := file(t, "testdata/key.pem")
	for _, name := range files {
		key := file(t, name)
		got, err := decryptKey(key, []byte("p$s"))
		if strings.Contains(name, "refused") {
			if err == nil {
				t.Errorf("%s: %s", name, got)
			}
			continue
		}
		if err != nil || string(got) != string(want) {
			t.Errorf("%s: %v\n%s", name, err, got)
		}
		if got, err := decryptKey(key, []byte("other")); !strings.Contains(name, "key.pem") && err == nil && string(got) == string(want) {
			t.Errorf("%s: another password opens it", name)
		}
		if _, err := decryptKey(key[:len(key)/2], []byte("p$s")); err == nil {
			t.Errorf("%s: half of it is enough", name)
		}
	}
}

func file(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
