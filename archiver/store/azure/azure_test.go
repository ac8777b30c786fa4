package azure_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/azure"
	"github.com/walbaton/walbaton/archiver/store/storetest"
)

func TestStore(t *testing.T) {
	rounds := 10
	if testing.Short() {
		rounds = 2
	}
	broken := func(container string, o azure.Options) func(t *testing.T) store.Store {
		return func(t *testing.T) store.Store {
			return open(t, "azblob://"+account+"/"+container+"?endpoint="+newStub(t).url, o)
		}
	}
	storetest.Run(t, func(t *testing.T) (a, b store.Store) {
		url := newStub(t).url
		return openAt(t, url), openAt(t, url)
	}, storetest.Options{Large: 500 << 10, Rounds: rounds, Broken: map[string]storetest.Broken{
		"missing container": {Open: broken("other", options), Want: store.ErrNoRoot},
		"unknown token":     {Open: broken("wal", azure.Options{SASToken: "sv=1&sig=x"}), Want: fs.ErrPermission},
	}})
}

func TestOpen(t *testing.T) {
	const sas = "&sas_token_file=/no/such/file"
	for url, want := range map[string]string{
		"azure://account/wal/p/q/?sas_token_file=f":                       "azure://account/wal/p/q",
		"azblob://account/wal?account_key_file=f":                         "azure://account/wal",
		"azure://acct1/w-l/p?endpoint=http://h:10000/acct1/" + sas:        "azure://acct1/w-l/p?endpoint=http://h:10000/acct1",
		"azure://account/wal":                                             "azure://account/wal",
		"azure://account/wal?sv=2021&sp=rl&sig=hush":                      "a SAS token does not belong into the URL",
		"azure://account/wal?secret=hush":                                 `unknown query key "secret"`,
		"azure://account:hush@account/wal":                                "holds no credentials",
		"azure://account":                                                 "is not like azure://account/container/prefix",
		"azure:///wal":                                                    "is not like azure://account/container/prefix",
		"s3://account/wal":                                                "is not like azure://account/container/prefix",
		"azure://account.blob.core.windows.net/wal":                       "give the account's name",
		"azure://My-Account/wal":                                          "cannot be the name of a storage account",
		"azure://account/W":                                               "cannot be the name of a container",
		"azure://account/w--l":                                            "cannot be the name of a container",
		"azure://account/wal/a//b":                                        "prefix",
		"azure://account/wal/" + strings.Repeat("p/", 150):                "longer than",
		"azure://account/wal?endpoint=":                                   "wants one value",
		"azure://account/wal?endpoint=h:9000":                             "is not like http://host:port",
		"azure://account/wal?endpoint=https://u:hush@h":                   "is not like http://host:port",
		"azure://account/wal?endpoint=http://h":                           "not sent in the clear",
		"azure://account/wal?ca_file=/no/such/file":                       "ca_file",
		"azure://account/wal?account_key_file=/hush&sas_token_file=/hush": "exclude each other",
	} {
		s, err := azure.Open(url, azure.Options{})
		switch {
		case err == nil && s.String() != want:
			t.Errorf("open %s: got %s, want %s", url, s, want)
		case err != nil && !strings.Contains(err.Error(), want):
			t.Errorf("open %s: got %v, want %q", url, err, want)
		case err != nil && strings.Contains(err.Error(), "hush"):
			t.Errorf("open %s: %v tells a secret", url, err)
		}
	}
	for want, o := range map[string]azure.Options{
		"account key: it is not base64":      {AccountKey: "hush hush"},
		"SAS token: it is not of the form":   {SASToken: "hush"},
		"SAS token: it is not of the form s": {SASToken: "https://account.blob.core.windows.net/wal?sig=hush"},
	} {
		if _, err := azure.Open("azure://account/wal", o); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// Secrets in files are read when they are needed, and again later; they beat those of the configuration.
func TestSecretFiles(t *testing.T) {
	stub := newStub(t)
	for key, secret := range map[string]string{"account_key_file": accountKey + "\n", "sas_token_file": "?" + sasToken + "\n"} {
		file := filepath.Join(t.TempDir(), "secret")
		s := open(t, "azure://"+account+"/wal?endpoint="+stub.url+"&"+key+"="+file, azure.Options{SASToken: "sv=1&sig=wrong"})
		if err := s.Put(t.Context(), key, strings.NewReader("data")); !storetest.Is(err, storetest.ErrUnclear) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: put without the file: got %v, want it to name %s", key, err, file)
		}
		writeFile(t, file, "hush!")
		if err := s.Put(t.Context(), key, strings.NewReader("data")); err == nil || !strings.Contains(err.Error(), file) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: put with a file of something else: got %v, want it to name %s", key, err, file)
		}
		writeFile(t, file, secret)
		if err := s.Put(t.Context(), key, strings.NewReader("data")); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
	s := open(t, "azure://"+account+"/wal?endpoint="+stub.url, azure.Options{AccountKey: accountKey})
	if _, err := s.Head(t.Context(), "account_key_file"); err != nil {
		t.Errorf("head with an account key of the configuration: %v", err)
	}
}

// No error shows a token, whatever went wrong.
func TestErrorsShowNoToken(t *testing.T) {
	proxy := storetest.NewProxy(t, "http://127.0.0.1:1")
	for _, endpoint := range []string{proxy.URL + "/" + account, "http://127.0.0.1:1/" + account, "http://no-such-host.invalid"} {
		s := openAt(t, endpoint)
		_, head := s.Head(t.Context(), "key")
		for _, err := range []error{head, s.Put(t.Context(), "key", strings.NewReader("data")), storetest.Read(s.Get(t.Context(), "key", 0, -1)),
			s.Put(t.Context(), "key", bytes.NewReader(make([]byte, 500<<10))), s.Delete(t.Context(), "key")} {
			if !storetest.Is(err, storetest.ErrUnclear) || strings.Contains(err.Error(), "sig=") {
				t.Errorf("%s: got %v, want an error without a kind, and without the token", endpoint, err)
			}
		}
	}
	_, err := openAt(t, "http://no-such-host.invalid").Head(t.Context(), "key")
	if err == nil || !strings.Contains(err.Error(), `is "stubaccount" the name of a storage account?`) {
		t.Errorf("unknown account: got %v", err)
	}
}

func methods(p *storetest.Proxy) []string {
	var got []string
	for _, r := range p.Requests() {
		got = append(got, strings.TrimSpace(r.Method+" "+r.Query.Get("comp")))
	}
	return got
}

func through(t *testing.T, stub *stub) (*storetest.Proxy, *azure.Store) {
	t.Helper()
	proxy := storetest.NewProxy(t, strings.TrimSuffix(stub.url, "/"+account))
	return proxy, openAt(t, proxy.URL+"/"+account)
}

// One object is one request. (STYLE: tests assert the number of remote calls.)
func TestRequestsCounted(t *testing.T) {
	proxy, s := through(t, newStub(t))
	for i, step := range []struct {
		name string
		do   func() error
		want []string
	}{
		{"put", func() error { return s.Put(t.Context(), "one", bytes.NewReader(make([]byte, 290<<10))) }, []string{"PUT"}},
		{"head", func() error { _, err := s.Head(t.Context(), "one"); return err }, []string{"HEAD"}},
		{"get", func() error { return storetest.Read(s.Get(t.Context(), "one", 0, 4096)) }, []string{"GET"}},
		{"list", func() error {
			for _, err := range s.List(t.Context(), "", "") {
				return err
			}
			return errors.New("no keys")
		}, []string{"GET list"}},
		{"large put", func() error { return s.Put(t.Context(), "large", bytes.NewReader(make([]byte, 500<<10))) },
			[]string{"PUT block", "PUT block", "PUT block", "PUT blocklist"}},
		{"delete", func() error { return s.Delete(t.Context(), "one") }, []string{"DELETE"}},
		{"delete what is not there", func() error { return s.Delete(t.Context(), "one") }, []string{"DELETE"}},
	} {
		if err := step.do(); err != nil {
			t.Errorf("%s: %v", step.name, err)
		}
		if got := methods(proxy); !slices.Equal(got, step.want) {
			t.Errorf("%d %s: got requests %v, want %v", i, step.name, got, step.want)
		}
	}
}

func answer(status int, code string) storetest.Spoil {
	return storetest.Spoil{Answer: func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		fail(w, status, code, "says the stub")
	}}
}

// A write without a clear answer is looked after before anything is said about it.
func TestUnclearWrites(t *testing.T) {
	const small, large = 200 << 10, 500 << 10
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
		{"500", small, answer(500, "OperationTimedOut"), "", storetest.ErrUnclear},
		{"500, done nevertheless", small, answer(500, "OperationTimedOut"), "ours", nil},
		{"503", small, answer(503, "ServerBusy"), "", storetest.ErrUnclear},
		{"409", small, answer(409, "BlobAlreadyExists"), "ours", fs.ErrExist},
		{"409 of a policy on what is there", small, answer(409, "BlobImmutableDueToPolicy"), "other", fs.ErrExist},
		{"412 of a lease on what is there", small, answer(412, "LeaseIdMissing"), "other", fs.ErrExist},
		{"403, taken", small, answer(403, "AuthorizationPermissionMismatch"), "other", fs.ErrExist},
		{"403, taken by equal content", small, answer(403, "AuthorizationPermissionMismatch"), "ours", fs.ErrExist},
		{"commit 403, taken", large, answer(403, "AuthorizationPermissionMismatch"), "other", fs.ErrExist},
		{"403, free", small, answer(403, "AuthorizationPermissionMismatch"), "", fs.ErrPermission},
		{"400 for a wrong checksum", small, answer(400, "Md5Mismatch"), "", storetest.ErrUnclear},
		{"commit lost on the way", large, storetest.Spoil{ResetBefore: 10}, "", storetest.ErrUnclear},
		{"commit lost on the way, lost race", large, storetest.Spoil{ResetBefore: 10}, "other", fs.ErrExist},
		{"commit's answer lost", large, storetest.Spoil{ResetAfter: true}, "", nil},
		{"commit 400, an earlier one succeeded", large, answer(400, "InvalidBlockList"), "ours", nil},
		{"commit 400, another was faster", large, answer(400, "InvalidBlockList"), "other", fs.ErrExist},
		{"commit 400", large, answer(400, "InvalidBlockList"), "", storetest.ErrUnclear},
		{"commit 409", large, answer(409, "BlobAlreadyExists"), "ours", fs.ErrExist},
	} {
		t.Run(test.name, func(t *testing.T) {
			stub := newStub(t)
			ours := bytes.Repeat([]byte("ours!"), test.size/5)
			switch test.there {
			case "ours":
				stub.blobs["some/prefix/key"] = blob{ours, `"1"`}
			case "other":
				stub.blobs["some/prefix/key"] = blob{bytes.Repeat([]byte("other"), test.size/5), `"1"`}
			}
			proxy, s := through(t, stub)
			proxy.Spoil(func(r storetest.Request) storetest.Spoil {
				if r.Header.Get("If-None-Match") == "*" {
					return test.spoil
				}
				return storetest.Spoil{}
			})
			if err := s.Put(t.Context(), "key", bytes.NewReader(ours)); !storetest.Is(err, test.want) {
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
		{"503", small, answer(503, "ServerBusy")},
		{"503 to everything of a large put", large, answer(503, "ServerBusy")},
		{"reset in the middle of a put", small, storetest.Spoil{ResetBefore: small / 2}},
		{"reset in the middle of a block", large, storetest.Spoil{ResetBefore: 100 << 10}},
		{"answers lost", small, storetest.Spoil{ResetAfter: true}},
		{"answers lost of a large put", large, storetest.Spoil{ResetAfter: true}},
		{"answers cut", small, storetest.Spoil{CutAnswer: 100}},
	} {
		t.Run(test.name, func(t *testing.T) {
			proxy, s := through(t, newStub(t))
			storetest.Recovers(t, proxy, s, test.size, test.spoil, func(r storetest.Request) string { return r.Method + r.Query.Get("comp") })
		})
	}
}

// Blocks are staged under a name, not by a writer: what another one has staged meanwhile, committed or not, does not get into our blob.
func TestBlocksOfOthers(t *testing.T) {
	ours, theirs := bytes.Repeat([]byte("ours!"), 100<<10), bytes.Repeat([]byte("other"), 100<<10)
	for _, commits := range []bool{false, true} {
		stub := newStub(t)
		ourProxy, we := through(t, stub)
		theirProxy, they := through(t, stub)
		var other error
		ourProxy.Spoil(func(r storetest.Request) storetest.Spoil {
			if r.Query.Get("comp") == "blocklist" { // ours are staged: now they stage theirs
				other = they.Put(t.Context(), "key", bytes.NewReader(theirs))
			}
			return storetest.Spoil{}
		})
		theirProxy.Spoil(func(r storetest.Request) storetest.Spoil {
			if r.Query.Get("comp") == "blocklist" && !commits {
				return answer(503, "ServerBusy")
			}
			return storetest.Spoil{}
		})
		err := we.Put(t.Context(), "key", bytes.NewReader(ours))
		want, wantErr, wantOther := ours, error(nil), storetest.ErrUnclear
		if commits {
			want, wantErr, wantOther = theirs, fs.ErrExist, nil
		}
		if !storetest.Is(err, wantErr) || !storetest.Is(other, wantOther) {
			t.Errorf("they commit %v: got %v for us and %v for them, want %v and %v", commits, err, other, wantErr, wantOther)
		}
		if got := stub.blobs["some/prefix/key"].data; !bytes.Equal(got, want) {
			t.Errorf("they commit %v: the blob is not what its writer put", commits)
		}
	}
}

// A read that broke off goes on with the blob that it began with, or not at all.
func TestResumedRead(t *testing.T) {
	for name, replaced := range map[string]bool{"same": false, "replaced": true} {
		t.Run(name, func(t *testing.T) {
			stub := newStub(t)
			want := bytes.Repeat([]byte("0123456789"), 100_000)
			stub.blobs["some/prefix/key"] = blob{want, `"1"`}
			proxy, driver := through(t, stub)
			first := true
			proxy.Spoil(func(storetest.Request) storetest.Spoil {
				if !first {
					return storetest.Spoil{}
				}
				first = false
				return storetest.Spoil{CutAnswer: 500_000}
			})
			s := store.Retry(store.Meter(store.Stall(driver, time.Minute), store.NewMetrics(nil)), store.Backoff{First: time.Millisecond})
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
				stub.blobs["some/prefix/key"] = blob{bytes.Repeat([]byte("x"), len(want)), `"2"`}
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

// What was damaged on the way is seen at the end of the blob.
func TestDamagedAnswer(t *testing.T) {
	proxy, s := through(t, newStub(t))
	proxy.Spoil(func(storetest.Request) storetest.Spoil {
		return storetest.Spoil{Answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("ETag", `"1"`)
			w.Header().Set("Content-MD5", sum([]byte("good data")))
			_, _ = io.WriteString(w, "g00d data")
		}}
	})
	if err := storetest.Read(s.Get(t.Context(), "key", 0, -1)); !storetest.Is(err, storetest.ErrUnclear) {
		t.Errorf("got %v, want an error without a kind", err)
	}
}

// A lease, a snapshot or a policy is told from a lack of permission.
func TestProtected(t *testing.T) {
	proxy, driver := through(t, newStub(t))
	s := store.Retry(driver, store.Backoff{})
	for _, test := range []struct {
		status    int
		code      string
		protected bool
	}{
		{409, "BlobImmutableDueToPolicy", true},
		{409, "SnapshotsPresent", true},
		{412, "LeaseIdMissing", true},
		{403, "AuthorizationPermissionMismatch", false},
	} {
		proxy.Spoil(func(storetest.Request) storetest.Spoil { return answer(test.status, test.code) })
		err := s.Delete(t.Context(), "key")
		if !errors.Is(err, fs.ErrPermission) || errors.Is(err, store.ErrProtected) != test.protected || !strings.Contains(err.Error(), test.code+": says the stub") {
			t.Errorf("%s: got %v, want protected %v", test.code, err, test.protected)
		}
	}
}

// An account with soft delete or versions keeps what is deleted; who may not ask does not know.
func TestHides(t *testing.T) {
	stub := newStub(t)
	stub.blobs["some/prefix/key"] = blob{nil, `"1"`}
	proxy, driver := through(t, stub)
	s := store.Retry(driver, store.Backoff{First: time.Millisecond})
	for _, test := range []struct{ soft, named bool }{{false, false}, {true, false}, {false, true}, {true, true}} {
		stub.soft, stub.named = test.soft, test.named
		if hides, err := store.Hides(t.Context(), s); hides != (test.soft || test.named) || err != nil {
			t.Errorf("soft delete %v, versions %v: got %v, %v", test.soft, test.named, hides, err)
		}
	}
	stub.named = false
	for want, spoil := range map[error]storetest.Spoil{
		fs.ErrPermission:     answer(403, "AuthorizationPermissionMismatch"),
		storetest.ErrUnclear: answer(503, "ServerBusy"),
	} {
		proxy.Spoil(func(r storetest.Request) storetest.Spoil {
			if r.Query.Get("restype") == "service" {
				return spoil
			}
			return storetest.Spoil{}
		})
		if _, err := store.Hides(t.Context(), s); !storetest.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
}

// What does not come from Azure proves nothing.
func TestStrangeAnswers(t *testing.T) {
	proxy, s := through(t, newStub(t))
	for name, handler := range map[string]http.HandlerFunc{
		"404": http.NotFound,
		"200": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>log in, please</html>") },
		"201": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },
	} {
		proxy.Spoil(func(storetest.Request) storetest.Spoil { return storetest.Spoil{Answer: handler} })
		_, headErr := s.Head(t.Context(), "key")
		var listErr error
		for _, listErr = range s.List(t.Context(), "", "") {
		}
		for request, err := range map[string]error{
			"put":    s.Put(t.Context(), "new", strings.NewReader("data")),
			"large":  s.Put(t.Context(), "new", bytes.NewReader(make([]byte, 500<<10))),
			"head":   headErr,
			"list":   listErr,
			"get":    storetest.Read(s.Get(t.Context(), "key", 0, -1)),
			"range":  storetest.Read(s.Get(t.Context(), "key", 3, 2)),
			"delete": s.Delete(t.Context(), "key"),
		} {
			if !storetest.Is(err, storetest.ErrUnclear) {
				t.Errorf("%s, answered with %s: got %v, want an error without a kind", request, name, err)
			}
		}
	}
	proxy.Spoil(func(storetest.Request) storetest.Spoil {
		return storetest.Spoil{Answer: func(w http.ResponseWriter, _ *http.Request) {
			one := "<Properties><Last-Modified>Sat, 28 Nov 2026 00:00:00 GMT</Last-Modified><Content-Length>1</Content-Length></Properties></Blob>"
			_, _ = io.WriteString(w, "<EnumerationResults><Blobs><Blob><Name>some/prefix/b</Name>"+one+"<Blob><Name>some/prefix/a</Name>"+one+"</Blobs></EnumerationResults>")
		}}
	})
	var err error
	for _, err = range s.List(t.Context(), "", "") {
	}
	if err == nil || !strings.Contains(err.Error(), "byte order") {
		t.Errorf("list out of order: got %v", err)
	}
}
