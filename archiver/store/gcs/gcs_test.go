package gcs_test

import (
	"bytes"
	"encoding/json"
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
	"github.com/walbaton/walbaton/archiver/store/gcs"
	"github.com/walbaton/walbaton/archiver/store/storetest"
)

func TestStore(t *testing.T) {
	rounds := 10
	if testing.Short() {
		rounds = 2
	}
	storetest.Run(t, func(t *testing.T) (a, b store.Store) {
		url := newStub(t).server.URL
		return openAt(t, url, ""), openAt(t, url, "")
	}, storetest.Options{Large: 500 << 10, Rounds: rounds, Broken: map[string]storetest.Broken{
		"missing bucket": {Want: store.ErrNoRoot, Open: func(t *testing.T) store.Store {
			s, err := gcs.Open(t.Context(), "gs://other?endpoint="+newStub(t).server.URL, gcs.Options{})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}},
		"denied": {Want: fs.ErrPermission, Open: func(t *testing.T) store.Store {
			s := newStub(t)
			s.secured = true
			return openAt(t, s.server.URL, "")
		}},
	}})
}

func TestOpen(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.json")
	writeFile(t, empty, []byte("hush"))
	for url, want := range map[string]string{
		"gcs://bucket/p/q/": "gcs://bucket/p/q",
		"gs://bucket":       "gcs://bucket",
		"gcs://b_1.example/p?endpoint=http://h:4443/":             "gcs://b_1.example/p?endpoint=http://h:4443",
		"gcs://bucket/p?secret=hush":                              `unknown query key "secret"`,
		"gcs://key:hush@bucket/p":                                 "holds no credentials",
		"gcs:///p":                                                "is not like gcs://bucket/prefix",
		"s3://bucket/p":                                           "is not like gcs://bucket/prefix",
		"gcs://Bucket/p":                                          "cannot be the name of a bucket",
		"gcs://bucket/a//b":                                       "prefix",
		"gcs://bucket/" + strings.Repeat("p/", 150):               "longer than",
		"gcs://bucket/p?endpoint=":                                "wants one value",
		"gcs://bucket/p?endpoint=h:9000":                          "is not like http://host:port",
		"gcs://bucket/p?endpoint=https://u:hush@h":                "is not like http://host:port",
		"gcs://bucket/p?credentials_file=/no/such/file":           "no such file",
		"gcs://bucket/p?credentials_file=" + empty:                "holds no credentials of a kind",
		"gcs://bucket/p?ca_file=/no/such/file":                    "ca_file",
		"gcs://bucket/p?endpoint=http://h&credentials_file=hush1": "is of no use",
	} {
		s, err := gcs.Open(t.Context(), url, gcs.Options{})
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

// The variable of Google's libraries names an emulator, with and without a scheme, and an endpoint in the URL beats it.
func TestEmulator(t *testing.T) {
	server := newStub(t).server.URL
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "/no/such/file")
	for _, emulator := range []string{server, strings.TrimPrefix(server, "http://")} {
		t.Setenv("STORAGE_EMULATOR_HOST", emulator)
		s, err := gcs.Open(t.Context(), "gcs://wal/p", gcs.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Put(t.Context(), "with:"+emulator[:5], strings.NewReader("data")); err != nil {
			t.Errorf("put with STORAGE_EMULATOR_HOST=%s: %v", emulator, err)
		}
		if s.String() != "gcs://wal/p?endpoint="+server {
			t.Errorf("got %s, want the emulator in it", s)
		}
	}
	t.Setenv("STORAGE_EMULATOR_HOST", "127.0.0.1:1")
	if _, err := openAt(t, server, "").Head(t.Context(), "key"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("head with an endpoint in the URL: got %v, want fs.ErrNotExist", err)
	}
}

// A service account's key is exchanged for a token, once, over a connection that ca_file vouches for.
func TestServiceAccount(t *testing.T) {
	s, caFile := newTLSStub(t)
	query := "&ca_file=" + caFile + "&credentials_file=" + serviceAccount(t, s.server.URL+"/token")
	handle := openAt(t, s.server.URL, query)
	for key, size := range map[string]int{"small": 200 << 10, "large": 500 << 10, "empty": 0} {
		if err := handle.Put(t.Context(), key, bytes.NewReader(make([]byte, size))); err != nil {
			t.Errorf("%s: %v", key, err)
		}
		if err := storetest.Read(handle.Get(t.Context(), key, 0, -1)); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
	if s.tokens != 1 {
		t.Errorf("%d tokens were asked for, want 1", s.tokens)
	}
	err := openAt(t, s.server.URL, "&credentials_file="+serviceAccount(t, s.server.URL+"/token")).Put(t.Context(), "key", strings.NewReader("data"))
	if !storetest.Is(err, storetest.ErrUnclear) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("unknown authority: got %v, want a certificate error", err)
	}
}

// Without a token nothing is asked of the store, and the error says which credentials fail.
func TestNoToken(t *testing.T) {
	s, caFile := newTLSStub(t)
	refuse := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": "invalid_grant", "error_description": "Invalid JWT Signature."})
	})
	proxy := storetest.NewProxy(t, s.server.URL)
	proxy.Spoil(func(storetest.Request) storetest.Spoil { return storetest.Spoil{Answer: refuse} })
	file := serviceAccount(t, proxy.URL+"/token")
	handle := openAt(t, s.server.URL, "&ca_file="+caFile+"&credentials_file="+file)
	err := handle.Put(t.Context(), "key", strings.NewReader("data"))
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "Invalid JWT Signature") {
		t.Errorf("key that Google refuses: got %v, want fs.ErrPermission", err)
	}
	// The file is exchanged: the next request reads it.
	if err := os.Rename(serviceAccount(t, s.server.URL+"/token"), file); err != nil {
		t.Fatal(err)
	}
	if err := handle.Put(t.Context(), "key", strings.NewReader("data")); err != nil {
		t.Errorf("put with a new key in the same file: %v", err)
	}
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", filepath.Join(t.TempDir(), "none"))
	err = openAt(t, s.server.URL, "&ca_file="+caFile).Put(t.Context(), "key", strings.NewReader("data"))
	if !storetest.Is(err, storetest.ErrUnclear) || !strings.Contains(err.Error(), "no token") {
		t.Errorf("no credentials: got %v", err)
	}
}

func methods(p *storetest.Proxy) []string {
	var got []string
	for _, r := range p.Requests() {
		got = append(got, r.Method)
	}
	return got
}

// One object is one request, and one more when it is not there. (STYLE: tests assert the number of remote calls.)
func TestRequestsCounted(t *testing.T) {
	proxy := storetest.NewProxy(t, newStub(t).server.URL)
	s := openAt(t, proxy.URL, "")
	for i, step := range []struct {
		name string
		do   func() error
		want []string
	}{
		{"put", func() error { return s.Put(t.Context(), "one", bytes.NewReader(make([]byte, 290<<10))) }, []string{"POST"}},
		{"taken", func() error {
			if err := s.Put(t.Context(), "one", strings.NewReader("other")); !errors.Is(err, fs.ErrExist) {
				return err
			}
			return nil
		}, []string{"POST"}},
		{"head", func() error { _, err := s.Head(t.Context(), "one"); return err }, []string{"GET"}},
		{"get", func() error { return storetest.Read(s.Get(t.Context(), "one", 0, 4096)) }, []string{"GET"}},
		{"list", func() error {
			for _, err := range s.List(t.Context(), "", "") {
				return err
			}
			return errors.New("no keys")
		}, []string{"GET"}},
		{"large put", func() error { return s.Put(t.Context(), "large", bytes.NewReader(make([]byte, 17<<20))) }, []string{"POST", "POST", "POST"}},
		{"delete", func() error { return s.Delete(t.Context(), "one") }, []string{"DELETE"}},
		{"delete what is not there", func() error { return s.Delete(t.Context(), "one") }, []string{"DELETE", "GET"}},
	} {
		if err := step.do(); err != nil {
			t.Errorf("%s: %v", step.name, err)
		}
		if got := methods(proxy); !slices.Equal(got, step.want) {
			t.Errorf("%d %s: got requests %v, want %v", i, step.name, got, step.want)
		}
	}
}

func answer(status int, reason, message string) storetest.Spoil {
	return storetest.Spoil{Answer: func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		fail(w, status, reason, message)
	}}
}

// A write without a clear answer is looked after before anything is said about it.
func TestUnclearWrites(t *testing.T) {
	const small, large = 200 << 10, 500 << 10
	lacksDelete := answer(403, "forbidden", "walbaton does not have storage.objects.delete access to the Google Cloud Storage object.")
	for _, test := range []struct {
		name  string
		size  int
		spoil storetest.Spoil // of the request that decides
		there string          // "" nothing, "ours" or "other": what has the key already
		want  error
	}{
		{"reset on the way", small, storetest.Spoil{ResetBefore: 1000}, "", storetest.ErrUnclear},
		{"reset on the way, lost race", small, storetest.Spoil{ResetBefore: 1000}, "other", fs.ErrExist},
		{"reset on the way, equal content", small, storetest.Spoil{ResetBefore: 1000}, "ours", nil},
		{"answer lost", small, storetest.Spoil{ResetAfter: true}, "", nil},
		{"answer lost, lost race", small, storetest.Spoil{ResetAfter: true}, "other", fs.ErrExist},
		{"503", small, answer(503, "backendError", ""), "", storetest.ErrUnclear},
		{"503, done nevertheless", small, answer(503, "backendError", ""), "ours", nil},
		{"429", small, answer(429, "rateLimitExceeded", ""), "", storetest.ErrUnclear},
		{"403 for too many requests", small, answer(403, "userRateLimitExceeded", ""), "", storetest.ErrUnclear},
		{"412", small, answer(412, "conditionNotMet", ""), "ours", fs.ErrExist},
		{"403", small, answer(403, "forbidden", "no storage.objects.create access"), "other", fs.ErrPermission},
		{"403 to who may not delete, taken", small, lacksDelete, "other", fs.ErrExist},
		{"403 to who may not delete, taken by equal content", small, lacksDelete, "ours", fs.ErrExist},
		{"403 to who may not delete, free", small, lacksDelete, "", fs.ErrPermission},
		{"400 for a wrong checksum", small, answer(400, "invalid", "Provided CRC32C does not match"), "", storetest.ErrUnclear},
		{"chunk lost on the way", large, storetest.Spoil{ResetBefore: 10}, "", storetest.ErrUnclear},
		{"chunk lost on the way, lost race", large, storetest.Spoil{ResetBefore: 10}, "other", fs.ErrExist},
		{"answer to the last chunk lost", large, storetest.Spoil{ResetAfter: true}, "", nil},
		{"session gone, an earlier request succeeded", large, answer(410, "gone", ""), "ours", nil},
		{"session gone", large, answer(410, "gone", ""), "", storetest.ErrUnclear},
		{"last chunk 412", large, answer(412, "conditionNotMet", ""), "ours", fs.ErrExist},
		{"last chunk 200 with another checksum", large, storetest.Spoil{Answer: func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			reply(w, map[string]any{"size": "1", "crc32c": "AAAAAA=="})
		}}, "", storetest.ErrUnclear},
	} {
		t.Run(test.name, func(t *testing.T) {
			stub := newStub(t)
			ours := bytes.Repeat([]byte("ours!"), test.size/5)
			switch test.there {
			case "ours":
				stub.objects["some/prefix/key"] = object{ours, 1}
			case "other":
				stub.objects["some/prefix/key"] = object{bytes.Repeat([]byte("other"), test.size/5), 1}
			}
			proxy := storetest.NewProxy(t, stub.server.URL)
			proxy.Spoil(func(r storetest.Request) storetest.Spoil {
				if r.Method == http.MethodPost && r.Query.Get("uploadType") != "resumable" {
					return test.spoil
				}
				return storetest.Spoil{}
			})
			if err := openAt(t, proxy.URL, "").Put(t.Context(), "key", bytes.NewReader(ours)); !storetest.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

// With store.Retry around it the driver survives what networks and servers do.
func TestRecovery(t *testing.T) {
	const small, large = 200 << 10, 500 << 10
	for _, test := range []struct {
		name  string
		size  int
		spoil storetest.Spoil
	}{
		{"503", small, answer(503, "backendError", "")},
		{"503 to everything of a large put", large, answer(503, "backendError", "")},
		{"reset in the middle of a put", small, storetest.Spoil{ResetBefore: small / 2}},
		{"reset in the middle of a chunk", large, storetest.Spoil{ResetBefore: 100 << 10}},
		{"answers lost", small, storetest.Spoil{ResetAfter: true}},
		{"answers lost of a large put", large, storetest.Spoil{ResetAfter: true}},
		{"answers cut", small, storetest.Spoil{CutAnswer: 1000}},
	} {
		t.Run(test.name, func(t *testing.T) {
			proxy := storetest.NewProxy(t, newStub(t).server.URL)
			storetest.Recovers(t, proxy, openAt(t, proxy.URL, ""), test.size, test.spoil, func(r storetest.Request) string {
				return r.Method + r.Query.Get("uploadType") + r.Query.Get("alt")
			})
		})
	}
}

// A read that broke off goes on with the object that it began with, or not at all.
func TestResumedRead(t *testing.T) {
	for name, replaced := range map[string]bool{"same": false, "replaced": true} {
		t.Run(name, func(t *testing.T) {
			stub := newStub(t)
			want := bytes.Repeat([]byte("0123456789"), 100_000)
			stub.objects["some/prefix/key"] = object{want, 1}
			proxy := storetest.NewProxy(t, stub.server.URL)
			first := true
			proxy.Spoil(func(r storetest.Request) storetest.Spoil {
				if !first {
					return storetest.Spoil{}
				}
				first = false
				return storetest.Spoil{CutAnswer: 500_000}
			})
			s := store.Retry(store.Meter(store.Stall(openAt(t, proxy.URL, ""), time.Minute), store.NewMetrics(nil)), store.Backoff{First: time.Millisecond})
			r, err := s.Get(t.Context(), "key", 0, -1)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
			if replaced {
				stub.mu.Lock()
				stub.objects["some/prefix/key"] = object{bytes.Repeat([]byte("x"), len(want)), 2}
				stub.mu.Unlock()
			}
			rest, err := io.ReadAll(r)
			if replaced && !errors.Is(err, store.ErrReplaced) {
				t.Errorf("got %d bytes and %v, want ErrReplaced", len(rest), err)
			}
			if !replaced && (err != nil || !bytes.Equal(rest, want[10:])) {
				t.Errorf("got %d bytes and %v, want all", len(rest), err)
			}
		})
	}
}

// What was damaged on the way is seen at the end of the object.
func TestDamagedAnswer(t *testing.T) {
	stub := newStub(t)
	stub.objects["some/prefix/key"] = object{[]byte("good data"), 1}
	proxy := storetest.NewProxy(t, stub.server.URL)
	proxy.Spoil(func(storetest.Request) storetest.Spoil {
		return storetest.Spoil{Answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Goog-Hash", "crc32c="+sum([]byte("good data"))+",md5=x")
			_, _ = io.WriteString(w, "g00d data")
		}}
	})
	if err := storetest.Read(openAt(t, proxy.URL, "").Get(t.Context(), "key", 0, -1)); !storetest.Is(err, storetest.ErrUnclear) {
		t.Errorf("got %v, want an error without a kind", err)
	}
}

// A hold or a retention policy is told from a lack of permission.
func TestProtected(t *testing.T) {
	stub := newStub(t)
	stub.objects["some/prefix/key"] = object{nil, 1}
	proxy := storetest.NewProxy(t, stub.server.URL)
	s := store.Retry(openAt(t, proxy.URL, ""), store.Backoff{})
	for _, test := range []struct {
		reason, message string
		protected       bool
	}{
		{"retentionPolicyNotMet", "Object 'wal/key' is subject to bucket's retention policy and cannot be deleted, overwritten or archived until 2027", true},
		{"forbidden", "Object 'wal/key' is under active Temporary hold and cannot be deleted, overwritten or archived until hold is removed.", true},
		{"forbidden", "Object 'wal/key' is under active Event-Based hold and cannot be deleted, overwritten or archived until hold is removed.", true},
		{"forbidden", "walbaton does not have storage.objects.delete access to the Google Cloud Storage object.", false},
	} {
		proxy.Spoil(func(storetest.Request) storetest.Spoil { return answer(403, test.reason, test.message) })
		err := s.Delete(t.Context(), "key")
		if !errors.Is(err, fs.ErrPermission) || errors.Is(err, store.ErrProtected) != test.protected || !strings.Contains(err.Error(), test.message) {
			t.Errorf("%s %s: got %v, want protected %v", test.reason, test.message, err, test.protected)
		}
	}
}

// A bucket with soft delete or versions keeps what is deleted; who may not ask does not know.
func TestHides(t *testing.T) {
	stub := newStub(t)
	proxy := storetest.NewProxy(t, stub.server.URL)
	s := store.Retry(openAt(t, proxy.URL, ""), store.Backoff{First: time.Millisecond})
	for _, test := range []struct {
		name   string
		bucket map[string]any
		hides  bool
	}{
		{"neither", map[string]any{"name": "wal"}, false},
		{"soft delete off", map[string]any{"softDeletePolicy": map[string]any{"retentionDurationSeconds": "0"}}, false},
		{"soft delete", map[string]any{"softDeletePolicy": map[string]any{"retentionDurationSeconds": "604800"}}, true},
		{"versions", map[string]any{"versioning": map[string]any{"enabled": true}}, true},
		{"versions suspended", map[string]any{"versioning": map[string]any{"enabled": false}}, false},
	} {
		stub.bucket = test.bucket
		if hides, err := store.Hides(t.Context(), s); hides != test.hides || err != nil {
			t.Errorf("%s: got %v, %v, want %v", test.name, hides, err, test.hides)
		}
	}
	for want, spoil := range map[error]storetest.Spoil{
		fs.ErrPermission:     answer(403, "forbidden", "no storage.buckets.get access"),
		store.ErrNoRoot:      answer(404, "notFound", "The specified bucket does not exist."),
		storetest.ErrUnclear: answer(503, "backendError", ""),
	} {
		proxy.Spoil(func(storetest.Request) storetest.Spoil { return spoil })
		if _, err := store.Hides(t.Context(), s); !storetest.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
}

// What does not come from Google proves nothing.
func TestStrangeAnswers(t *testing.T) {
	proxy := storetest.NewProxy(t, newStub(t).server.URL)
	s := openAt(t, proxy.URL, "")
	for name, handler := range map[string]http.HandlerFunc{
		"404": http.NotFound,
		"200": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>log in, please</html>") },
		"{}":  func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") },
	} {
		proxy.Spoil(func(storetest.Request) storetest.Spoil { return storetest.Spoil{Answer: handler} })
		_, headErr := s.Head(t.Context(), "key")
		var listErr error
		for _, listErr = range s.List(t.Context(), "", "") {
		}
		for request, err := range map[string]error{
			"put":   s.Put(t.Context(), "new", strings.NewReader("data")),
			"head":  headErr,
			"list":  listErr,
			"range": storetest.Read(s.Get(t.Context(), "key", 3, 2)),
		} {
			if !storetest.Is(err, storetest.ErrUnclear) {
				t.Errorf("%s, answered with %s: got %v, want an error without a kind", request, name, err)
			}
		}
	}
	proxy.Spoil(func(storetest.Request) storetest.Spoil { return storetest.Spoil{Answer: http.NotFound} })
	for request, err := range map[string]error{"get": storetest.Read(s.Get(t.Context(), "key", 0, -1)), "delete": s.Delete(t.Context(), "key")} {
		if !storetest.Is(err, storetest.ErrUnclear) {
			t.Errorf("%s, 404 from a proxy: got %v, want an error without a kind", request, err)
		}
	}
	proxy.Spoil(func(storetest.Request) storetest.Spoil {
		return storetest.Spoil{Answer: func(w http.ResponseWriter, _ *http.Request) {
			reply(w, map[string]any{"kind": "storage#objects", "items": []map[string]any{resource("some/prefix/b", object{}), resource("some/prefix/a", object{})}})
		}}
	})
	var err error
	for _, err = range s.List(t.Context(), "", "") {
	}
	if err == nil || !strings.Contains(err.Error(), "byte order") {
		t.Errorf("list out of order: got %v", err)
	}
}
