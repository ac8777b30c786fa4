package s3_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/s3"
	"github.com/walbaton/walbaton/archiver/store/storetest"
)

func TestStore(t *testing.T) {
	rounds := 10
	if testing.Short() {
		rounds = 2
	}
	storetest.Run(t, func(t *testing.T) (a, b store.Store) {
		_, url := newStub(t)
		return openAt(t, url, ""), openAt(t, url, "&path_style=true&region=eu-central-1")
	}, storetest.Options{Large: 500 << 10, Rounds: rounds, Broken: broken(func(t *testing.T) string {
		_, url := newStub(t)
		return url
	})})
}

func broken(endpoint func(t *testing.T) string) map[string]storetest.Broken {
	open := func(bucket string, o s3.Options) func(t *testing.T) store.Store {
		return func(t *testing.T) store.Store {
			s, err := s3.Open(t.Context(), "s3://"+bucket+"?endpoint="+endpoint(t), o)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
	}
	return map[string]storetest.Broken{
		"unknown access key": {Open: open("wal", s3.Options{AccessKey: "nobody", SecretKey: secretKey}), Want: fs.ErrPermission},
		"missing bucket":     {Open: open("other", s3.Options{AccessKey: accessKey, SecretKey: secretKey}), Want: store.ErrNoRoot},
	}
}

func TestOpen(t *testing.T) {
	t.Setenv("AWS_REGION", "")
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	for url, want := range map[string]string{
		"s3://b/p?region=eu-west-1":                  "s3://b/p",
		"s3://b/p/q/?endpoint=http://h:9000":         "s3://b/p/q?endpoint=http://h:9000",
		"s3://b?endpoint=https://h&path_style=false": "s3://b?endpoint=https://h",
		"s3://b/p":                                                  "its region is not known",
		"s3://b/p?region=x&secret=hush":                             `unknown query key "secret"`,
		"s3://key:hush@b/p?region=x":                                "holds no credentials",
		"s3:///p?region=x":                                          "is not like s3://bucket/prefix",
		"http://b/p":                                                "is not like s3://bucket/prefix",
		"s3://b/a//b?region=x":                                      "prefix",
		"s3://b/p?region=":                                          "wants one value",
		"s3://b/p?endpoint=h:9000":                                  "is not like http://host:port",
		"s3://b/p?endpoint=http://u:hush@h":                         "is not like http://host:port",
		"s3://b/p?region=x&path_style=maybe":                        "path_style",
		"s3://b/p?region=x&access_key_file=/etc/hush":               "go together",
		"s3://b/p?region=x&ca_file=/no/such/file":                   "ca_file",
		"s3://b/" + strings.Repeat("p/", 150) + "?region=x":         "longer than",
		"s3://b/p?region=x&profile=no-such-profile-in-the-shared-f": "profile",
	} {
		s, err := s3.Open(t.Context(), url, s3.Options{})
		switch {
		case err == nil && s.String() != want:
			t.Errorf("open %s: got %s, want %s", url, s, want)
		case err != nil && !strings.Contains(err.Error(), want):
			t.Errorf("open %s: got %v, want %q", url, err, want)
		case err != nil && strings.Contains(err.Error(), "hush"):
			t.Errorf("open %s: %v tells a secret", url, err)
		}
	}
}

// Keys in files are read when they are needed, and again later.
func TestKeyFiles(t *testing.T) {
	_, url := newStub(t)
	access, secret := filepath.Join(t.TempDir(), "access"), filepath.Join(t.TempDir(), "secret")
	s, err := s3.Open(t.Context(), "s3://wal?endpoint="+url+"&access_key_file="+access+"&secret_key_file="+secret, s3.Options{})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Put(t.Context(), "key", strings.NewReader("data"))
	if err == nil || isKind(err) || !strings.Contains(err.Error(), access) {
		t.Errorf("put without the files: got %v, want it to name %s, without a kind", err, access)
	}
	for name, content := range map[string]string{access: accessKey + "\n", secret: secretKey + "\n"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Put(t.Context(), "key", strings.NewReader("data")); err != nil {
		t.Error(err)
	}
}

// One object is one request, on a connection that is kept. (STYLE: tests assert the number of remote calls.)
func TestRequestsCounted(t *testing.T) {
	stub, url := newStub(t)
	s := openAt(t, url, "")
	proxy := storetest.NewProxy(t, url)
	counted := openAt(t, proxy.URL, "")
	const segment = 290 << 10
	for i, step := range []struct {
		name string
		do   func() error
		want []string
	}{
		{"put", func() error { return counted.Put(t.Context(), "one", bytes.NewReader(make([]byte, segment))) }, []string{"PUT"}},
		{"head", func() error { _, err := counted.Head(t.Context(), "one"); return err }, []string{"HEAD"}},
		{"get", func() error { return read(counted.Get(t.Context(), "one", 0, 4096)) }, []string{"GET"}},
		{"list", func() error {
			for _, err := range counted.List(t.Context(), "", "") {
				return err
			}
			return errors.New("no keys")
		}, []string{"GET"}},
		{"large put", func() error { return counted.Put(t.Context(), "large", bytes.NewReader(make([]byte, 500<<10))) },
			[]string{"POST", "PUT", "PUT", "PUT", "POST"}},
		{"delete", func() error { return counted.Delete(t.Context(), "one") }, []string{"DELETE"}},
	} {
		if err := step.do(); err != nil {
			t.Errorf("%s: %v", step.name, err)
		}
		if got := methods(proxy); !slices.Equal(got, step.want) {
			t.Errorf("%d %s: got requests %v, want %v", i, step.name, got, step.want)
		}
	}
	before := stub.opened()
	for i := range 20 {
		key := "many/" + strings.Repeat("x", i+1)
		if err := s.Put(t.Context(), key, bytes.NewReader(make([]byte, segment))); err != nil {
			t.Fatal(err)
		}
		if err := read(s.Get(t.Context(), key, 0, 4096)); err != nil {
			t.Fatal(err)
		}
	}
	if got := stub.opened() - before; got != 1 {
		t.Errorf("20 puts and gets in a row: got %d connections, want 1", got)
	}
}

// Through TLS the SDK would choose other forms of checksum and signature (a trailer, in chunks), which not all
// servers know; the driver's own checksum keeps it at one form. Without its authority no server is trusted.
func TestTLS(t *testing.T) {
	stub, url, caFile := newTLSStub(t)
	s := openAt(t, url, "&ca_file="+caFile)
	for key, size := range map[string]int{"small": 200 << 10, "large": 500 << 10, "empty": 0} {
		if err := s.Put(t.Context(), key, bytes.NewReader(make([]byte, size))); err != nil {
			t.Errorf("%s: %v", key, err)
		}
		if want := "UNSIGNED-PAYLOAD"; stub.payload != want && size > 0 {
			t.Errorf("%s: signed as %s, want %s", key, stub.payload, want)
		}
		if err := read(s.Get(t.Context(), key, 0, -1)); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
	err := openAt(t, url, "").Put(t.Context(), "key", strings.NewReader("data"))
	if err == nil || isKind(err) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("unknown authority: got %v, want a certificate error", err)
	}
}

func read(r io.ReadCloser, err error) error {
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(io.Discard, r)
	return err
}

func methods(p *storetest.Proxy) []string {
	var got []string
	for _, r := range p.Requests() {
		got = append(got, r.Method)
	}
	return got
}

// A write without a clear answer is looked after before anything is said about it.
func TestUnclearWrites(t *testing.T) {
	const small, large = 200 << 10, 500 << 10
	status := func(code int, name string) storetest.Spoil {
		return storetest.Spoil{Answer: func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			fail(w, code, name)
		}}
	}
	for _, test := range []struct {
		name  string
		size  int
		spoil storetest.Spoil // of the request that decides
		there string          // "" nothing, "ours" or "other": what has the key already
		want  error           // nil success; errUnclear: no kind, worth another try
	}{
		{"reset on the way", small, storetest.Spoil{ResetBefore: 1000}, "", errUnclear},
		{"reset on the way, lost race", small, storetest.Spoil{ResetBefore: 1000}, "other", fs.ErrExist},
		{"reset on the way, equal content", small, storetest.Spoil{ResetBefore: 1000}, "ours", nil},
		{"answer lost", small, storetest.Spoil{ResetAfter: true}, "", nil},
		{"answer lost, lost race", small, storetest.Spoil{ResetAfter: true}, "other", fs.ErrExist},
		{"409", small, status(409, "ConditionalRequestConflict"), "", errUnclear},
		{"409, lost race", small, status(409, "ConditionalRequestConflict"), "other", fs.ErrExist},
		{"409, our earlier try", small, status(409, "ConditionalRequestConflict"), "ours", nil},
		{"500", small, status(500, "InternalError"), "", errUnclear},
		{"500, done nevertheless", small, status(500, "InternalError"), "ours", nil},
		{"503", small, status(503, "SlowDown"), "", errUnclear},
		{"412", small, status(412, "PreconditionFailed"), "ours", fs.ErrExist},
		{"403", small, status(403, "AccessDenied"), "ours", fs.ErrPermission},
		{"completion lost on the way", large, storetest.Spoil{ResetBefore: 10}, "", errUnclear},
		{"completion lost on the way, lost race", large, storetest.Spoil{ResetBefore: 10}, "other", fs.ErrExist},
		{"completion's answer lost", large, storetest.Spoil{ResetAfter: true}, "", nil},
		{"completion 409", large, status(409, "ConditionalRequestConflict"), "", errUnclear},
		{"completion 200 with an error in it", large, status(200, "InternalError"), "", errUnclear},
		{"completion 200 with an error in it, done nevertheless", large, status(200, "InternalError"), "ours", nil},
		{"completion 404, an earlier one succeeded", large, status(404, "NoSuchUpload"), "ours", nil},
		{"completion 412", large, status(412, "PreconditionFailed"), "ours", fs.ErrExist},
	} {
		t.Run(test.name, func(t *testing.T) {
			stub, url := newStub(t)
			ours := bytes.Repeat([]byte("ours!"), test.size/5)
			switch test.there {
			case "ours":
				stub.objects["some/prefix/key"] = ours
			case "other":
				stub.objects["some/prefix/key"] = bytes.Repeat([]byte("other"), test.size/5)
			}
			proxy := storetest.NewProxy(t, url)
			proxy.Spoil(func(r storetest.Request) storetest.Spoil {
				if r.Header.Get("If-None-Match") == "*" {
					return test.spoil
				}
				return storetest.Spoil{}
			})
			err := openAt(t, proxy.URL, "").Put(t.Context(), "key", bytes.NewReader(ours))
			switch {
			case test.want == errUnclear:
				if err == nil || isKind(err) {
					t.Errorf("got %v, want an error without a kind", err)
				}
			case !errors.Is(err, test.want):
				t.Errorf("got %v, want %v", err, test.want)
			}
			if n := stub.pending(); n != 0 {
				t.Errorf("%d uploads are left", n)
			}
		})
	}
}

var errUnclear = errors.New("unclear")

func isKind(err error) bool {
	return slices.ContainsFunc([]error{fs.ErrExist, fs.ErrNotExist, fs.ErrPermission, fs.ErrInvalid, store.ErrNoRoot},
		func(kind error) bool { return errors.Is(err, kind) })
}

// With store.Retry around it the driver survives what networks and servers do.
func TestRecovery(t *testing.T) {
	const small, large = 200 << 10, 500 << 10
	answer503 := storetest.Spoil{Answer: func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		fail(w, 503, "SlowDown")
	}}
	for _, test := range []struct {
		name  string
		size  int
		spoil storetest.Spoil
	}{
		{"503", small, answer503},
		{"503 to everything of a large put", large, answer503},
		{"reset in the middle of a put", small, storetest.Spoil{ResetBefore: small / 2}},
		{"reset in the middle of a part", large, storetest.Spoil{ResetBefore: 100 << 10}},
		{"answers lost", small, storetest.Spoil{ResetAfter: true}},
		{"answers lost of a large put", large, storetest.Spoil{ResetAfter: true}},
		{"answers cut", small, storetest.Spoil{CutAnswer: 1000}},
	} {
		t.Run(test.name, func(t *testing.T) {
			stub, url := newStub(t)
			proxy := storetest.NewProxy(t, url)
			seen := make(map[string]bool)
			proxy.Spoil(func(r storetest.Request) storetest.Spoil { // the first request of each sort
				sort := r.Method + r.Query.Get("partNumber") + r.Query.Get("list-type") + r.Header.Get("If-None-Match")
				if seen[sort] {
					return storetest.Spoil{}
				}
				seen[sort] = true
				return test.spoil
			})
			s := store.Retry(store.Stall(openAt(t, proxy.URL, ""), 20*time.Second), store.Backoff{First: time.Millisecond, Tries: 20})
			want := bytes.Repeat([]byte("0123456789"), test.size/10)
			// fs.ErrExist is right as well when the first answer was lost and its look too.
			if err := s.Put(t.Context(), "key", bytes.NewReader(want)); err != nil && !errors.Is(err, fs.ErrExist) {
				t.Fatal(err)
			}
			info, err := s.Head(t.Context(), "key")
			if err != nil || info.Size != int64(len(want)) {
				t.Errorf("head: got %+v, %v", info, err)
			}
			clear(seen)
			r, err := s.Get(t.Context(), "key", 0, -1)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
				t.Errorf("get: got %d bytes, %v, want %d", len(got), err, len(want))
			}
			n := 0
			for _, err := range s.List(t.Context(), "", "") {
				if err != nil {
					t.Error(err)
				}
				n++
			}
			if n != 1 {
				t.Errorf("list: got %d keys, want 1", n)
			}
			if err := s.Delete(t.Context(), "key"); err != nil {
				t.Error(err)
			}
			if n := stub.pending(); n > 1 { // one whose id was lost with the answer may stay
				t.Errorf("%d uploads are left", n)
			}
		})
	}
}

// A server that stops answering is given up after a while without bytes, not sooner, and worth another try.
func TestStalled(t *testing.T) {
	stub, url := newStub(t)
	stub.objects["some/prefix/key"] = make([]byte, 1<<20)
	proxy := storetest.NewProxy(t, url)
	proxy.Spoil(func(storetest.Request) storetest.Spoil {
		return storetest.Spoil{Answer: func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		}}
	})
	s := store.Stall(openAt(t, proxy.URL, ""), 50*time.Millisecond)
	_, headErr := s.Head(t.Context(), "key")
	for name, err := range map[string]error{
		"put":    s.Put(t.Context(), "new", bytes.NewReader(make([]byte, 100<<10))),
		"get":    read(s.Get(t.Context(), "key", 0, -1)),
		"head":   headErr,
		"delete": s.Delete(t.Context(), "key"),
	} {
		if !errors.Is(err, store.ErrStalled) || isKind(err) {
			t.Errorf("%s: got %v, want ErrStalled", name, err)
		}
	}
}

// What does not come from S3 proves nothing.
func TestStrangeAnswers(t *testing.T) {
	_, url := newStub(t)
	proxy := storetest.NewProxy(t, url)
	s := openAt(t, proxy.URL, "")
	proxy.Spoil(func(storetest.Request) storetest.Spoil {
		return storetest.Spoil{Answer: http.NotFound}
	})
	_, headErr := s.Head(t.Context(), "key")
	for name, err := range map[string]error{
		"put":  s.Put(t.Context(), "new", strings.NewReader("data")),
		"get":  read(s.Get(t.Context(), "key", 0, -1)),
		"head": headErr,
	} {
		if err == nil || isKind(err) {
			t.Errorf("%s, 404 from a proxy: got %v, want an error without a kind", name, err)
		}
	}
	proxy.Spoil(func(storetest.Request) storetest.Spoil {
		return storetest.Spoil{Answer: func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "<ListBucketResult><Contents><Key>some/prefix/b</Key></Contents><Contents><Key>some/prefix/a</Key></Contents></ListBucketResult>")
		}}
	})
	var err error
	for _, err = range s.List(t.Context(), "", "") {
	}
	if err == nil || !strings.Contains(err.Error(), "byte order") {
		t.Errorf("list out of order: got %v", err)
	}
	proxy.Spoil(func(storetest.Request) storetest.Spoil {
		return storetest.Spoil{Answer: func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "all of it") }}
	})
	if err := read(s.Get(t.Context(), "key", 3, 2)); err == nil {
		t.Error("a range answered with the whole object: got no error")
	}
}

// A bucket that has versions, or had them, keeps what is deleted; who may not ask does not know.
func TestHides(t *testing.T) {
	answer := func(status int, text string) storetest.Spoil {
		return storetest.Spoil{Answer: func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, text)
		}}
	}
	versions := func(status string) storetest.Spoil {
		return answer(200, "<VersioningConfiguration>"+status+"</VersioningConfiguration>")
	}
	_, url := newStub(t)
	proxy := storetest.NewProxy(t, url)
	s := store.Retry(openAt(t, proxy.URL, ""), store.Backoff{})
	for _, test := range []struct {
		name  string
		spoil storetest.Spoil
		hides bool
		want  error
	}{
		{"never had versions", versions(""), false, nil},
		{"has versions", versions("<Status>Enabled</Status>"), true, nil},
		{"had versions", versions("<Status>Suspended</Status>"), true, nil},
		{"knows no versions", answer(501, "<Error><Code>NotImplemented</Code></Error>"), false, nil},
		{"denied", answer(403, "<Error><Code>AccessDenied</Code></Error>"), false, fs.ErrPermission},
		{"no bucket", answer(404, "<Error><Code>NoSuchBucket</Code></Error>"), false, store.ErrNoRoot},
		{"down", answer(503, "<Error><Code>SlowDown</Code></Error>"), false, errUnclear},
	} {
		proxy.Spoil(func(storetest.Request) storetest.Spoil { return test.spoil })
		hides, err := store.Hides(t.Context(), s)
		switch {
		case test.want == errUnclear:
			if err == nil || isKind(err) {
				t.Errorf("%s: got %v, want an error without a kind", test.name, err)
			}
		case hides != test.hides || !errors.Is(err, test.want):
			t.Errorf("%s: got %v, %v, want %v, %v", test.name, hides, err, test.hides, test.want)
		}
	}
}
