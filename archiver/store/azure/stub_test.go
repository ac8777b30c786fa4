package azure_test

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver/store/azure"
)

const (
	account    = "stubaccount"
	accountKey = "c3R1YiBrZXk=" // base64, as all are
	sasToken   = "sv=2026-02-06&sp=rcl&sig=c3R1Yg%3D%3D"
)

// stub is as much of Azure's blob service as the driver uses, in memory: the quick tests need no server. What a more faithful one
// does is seen in servers_test.go. It asks for a key or a token and checks no signatures.
type stub struct {
	t   *testing.T
	url string // of the account's blob service

	mu     sync.Mutex
	blobs  map[string]blob // by name; there is one container, "wal"
	staged map[string]map[string][]byte
	etags  int
	soft   bool // the account has soft delete
	named  bool // its blobs have versions
	sig    string
}

type blob struct {
	data []byte
	etag string
}

func newStub(t *testing.T) *stub {
	s := &stub{t: t, blobs: make(map[string]blob), staged: make(map[string]map[string][]byte), sig: "c3R1Yg=="}
	server := httptest.NewUnstartedServer(s)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Start()
	t.Cleanup(server.Close)
	s.url = server.URL + "/" + account
	return s
}

func writeFile(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

var options = azure.Options{SASToken: sasToken, BlocksAbove: 300 << 10, BlockSize: 200 << 10}

// openAt opens a prefix of container "wal" at a service, with small blocks.
func openAt(t *testing.T, endpoint string) *azure.Store {
	t.Helper()
	return open(t, "azure://"+account+"/wal/some/prefix?endpoint="+endpoint, options)
}

func open(t *testing.T, url string, o azure.Options) *azure.Store {
	t.Helper()
	s, err := azure.Open(url, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func fail(w http.ResponseWriter, status int, code, message string) {
	if code != "" {
		w.Header().Set("x-ms-error-code", code)
	}
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "\ufeff<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>%s</Code><Message>%s\nRequestId:1\nTime:now</Message></Error>", code, message)
}

func (s *stub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client went away; half a body is never stored
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	q := r.URL.Query()
	if q.Get("sig") != s.sig && !strings.HasPrefix(r.Header.Get("Authorization"), "SharedKey "+account+":") {
		fail(w, http.StatusForbidden, "AuthenticationFailed", "Server failed to authenticate the request.")
		return
	}
	container, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"+account+"/"), "/")
	switch {
	case q.Get("restype") == "service":
		fmt.Fprintf(w, "<StorageServiceProperties><DeleteRetentionPolicy><Enabled>%v</Enabled></DeleteRetentionPolicy></StorageServiceProperties>", s.soft)
	case container != "wal":
		fail(w, http.StatusNotFound, "ContainerNotFound", "The specified container does not exist.")
	case q.Get("comp") == "list":
		s.list(w, r)
	case r.Method == http.MethodPut:
		s.put(w, r, name, body)
	default:
		s.blob(w, r, name)
	}
}

func (s *stub) blob(w http.ResponseWriter, r *http.Request, name string) {
	b, there := s.blobs[name]
	switch {
	case !there:
		fail(w, http.StatusNotFound, "BlobNotFound", "The specified blob does not exist.")
	case r.Method == http.MethodDelete:
		delete(s.blobs, name)
		w.WriteHeader(http.StatusAccepted)
	default:
		ranged := r.Header.Get("x-ms-range")
		r.Header.Set("Range", ranged)
		if ranged == "" {
			r.Header.Del("Range")
			w.Header().Set("Content-MD5", sum(b.data))
		}
		w.Header().Set("ETag", b.etag)
		http.ServeContent(w, r, "", time.Now(), bytes.NewReader(b.data))
	}
}

func sum(data []byte) string {
	sum := md5.Sum(data)
	return base64.StdEncoding.EncodeToString(sum[:])
}

func (s *stub) put(w http.ResponseWriter, r *http.Request, name string, body []byte) {
	q := r.URL.Query()
	if q.Get("comp") != "blocklist" {
		if got, want := r.Header.Get("Content-MD5"), sum(body); got != want {
			s.t.Errorf("put %s %s: Content-MD5 is %q, want %q", name, r.URL.RawQuery, got, want)
		}
	}
	switch q.Get("comp") {
	case "block":
		if s.staged[name] == nil {
			s.staged[name] = make(map[string][]byte)
		}
		s.staged[name][q.Get("blockid")] = body
		w.WriteHeader(http.StatusCreated)
		return
	case "blocklist":
		var list struct{ Latest []string }
		if err := xml.Unmarshal(body, &list); err != nil {
			fail(w, http.StatusBadRequest, "InvalidXmlDocument", err.Error())
			return
		}
		var data []byte
		for _, id := range list.Latest {
			block, ok := s.staged[name][id]
			if !ok {
				fail(w, http.StatusBadRequest, "InvalidBlockList", "The specified block list is invalid.")
				return
			}
			data = append(data, block...)
		}
		if got, want := r.Header.Get("x-ms-blob-content-md5"), sum(data); got != want {
			s.t.Errorf("commit %s: the MD5 of the whole is %q, want %q", name, got, want)
		}
		body = data
	}
	if r.Header.Get("If-None-Match") != "*" {
		s.t.Errorf("%s %s %s without If-None-Match", r.Method, name, r.URL.RawQuery)
	}
	if _, taken := s.blobs[name]; taken {
		fail(w, http.StatusConflict, "BlobAlreadyExists", "The specified blob already exists.")
		return
	}
	delete(s.staged, name) // of everybody
	s.etags++
	s.blobs[name] = blob{body, fmt.Sprintf(`"%d"`, s.etags)}
	w.WriteHeader(http.StatusCreated)
}

func (s *stub) list(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	var names []string
	for name := range s.blobs {
		if strings.HasPrefix(name, q.Get("prefix")) && name >= q.Get("startFrom") && name >= q.Get("marker") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	next := ""
	if limit := 1000; len(names) > limit {
		next, names = names[limit], names[:limit]
	}
	var items strings.Builder
	for _, name := range names {
		var escaped strings.Builder
		if err := xml.EscapeText(&escaped, []byte(name)); err != nil {
			s.t.Error(err)
		}
		fmt.Fprintf(&items, "<Blob><Name>%s</Name>", escaped.String())
		if s.named && strings.Contains(q.Get("include"), "versions") {
			items.WriteString("<VersionId>2026-11-28T00:00:00.0000000Z</VersionId>")
		}
		fmt.Fprintf(&items, "<Properties><Last-Modified>%s</Last-Modified><Content-Length>%d</Content-Length></Properties></Blob>",
			time.Now().UTC().Format(http.TimeFormat), len(s.blobs[name].data))
	}
	w.Header().Set("Content-Type", "application/xml")
	fmt.Fprintf(w, "<EnumerationResults><Blobs>%s</Blobs><NextMarker>%s</NextMarker></EnumerationResults>", items.String(), next)
}
