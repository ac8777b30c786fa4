package remote_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"

	"github.com/walbaton/walbaton/archiver/store/remote"
	"github.com/walbaton/walbaton/archiver/store/storetest"
)

// What happened on this machine says nothing about a key, whatever word the system has for it.
func TestUnknown(t *testing.T) {
	for _, err := range []error{
		&fs.PathError{Op: "open", Path: "/etc/walbaton/sas", Err: syscall.ENOENT},
		fmt.Errorf("dial: %w", syscall.EPERM),
		errors.New("anything else"),
	} {
		got := remote.Unknown(err)
		if storetest.IsKind(got) || got.Error() != err.Error() {
			t.Errorf("%v: got %v, a kind: %v", err, got, storetest.IsKind(got))
		}
	}
}

// A loan that has ended, or whose context has, gives nothing more away.
func TestLoan(t *testing.T) {
	loan := remote.Lend(t.Context(), strings.NewReader("0123456789"))
	section, p := loan.Section(2, 5), make([]byte, 3)
	if n, err := section.Read(p); n != 3 || err != nil || string(p) != "234" {
		t.Errorf("got %d bytes %q, %v", n, p, err)
	}
	loan.End()
	if n, err := section.Read(p); n != 0 || !errors.Is(err, fs.ErrClosed) {
		t.Errorf("after the end: got %d bytes, %v, want fs.ErrClosed", n, err)
	}
}

// Requests go through the proxies of the environment; the address at which a cloud tells a machine who it is is never behind one.
func TestProxies(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://proxy.example:3128")
	t.Setenv("HTTPS_PROXY", "http://proxy.example:3128")
	t.Setenv("NO_PROXY", "near.example")
	transport := new(http.Transport)
	remote.Tune(transport, nil)
	for to, want := range map[string]string{
		"https://storage.googleapis.com/":        "http://proxy.example:3128",
		"https://near.example/":                  "",
		"http://169.254.169.254/computeMetadata": "",
	} {
		at, err := url.Parse(to)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		proxy, err := transport.Proxy(&http.Request{URL: at})
		if proxy != nil {
			got = proxy.String()
		}
		if got != want || err != nil {
			t.Errorf("%s: got proxy %q, %v, want %q", to, got, err, want)
		}
	}
}
