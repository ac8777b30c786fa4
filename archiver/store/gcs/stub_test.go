package gcs_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"hash/crc32"
	"io"
	"log"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver/store/gcs"
)

const bearer = "stub-token"

// stub is as much of Google's JSON API as the driver uses, in memory: the quick tests need no server. What a more faithful one
// does is seen in servers_test.go.
type stub struct {
	t      *testing.T
	server *httptest.Server

	mu       sync.Mutex
	objects  map[string]object // by name; there is one bucket, "wal"
	sessions map[string]*session
	ids      int64
	bucket   map[string]any // its properties
	secured  bool           // a token is asked for
	tokens   int            // given
}

type object struct {
	data       []byte
	generation int64
}

// session is a resumable upload.
type session struct {
	meta map[string]any
	data []byte
}

func newStub(t *testing.T) *stub {
	s := unstarted(t)
	s.server.Start()
	return s
}

func unstarted(t *testing.T) *stub {
	s := &stub{t: t, objects: make(map[string]object), sessions: make(map[string]*session), bucket: map[string]any{"name": "wal"}}
	s.server = httptest.NewUnstartedServer(s)
	s.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(s.server.Close)
	return s
}

// newTLSStub asks for a token, and gives the certificate to trust.
func newTLSStub(t *testing.T) (s *stub, caFile string) {
	s = unstarted(t)
	s.secured = true
	s.server.StartTLS()
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	writeFile(t, caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.server.Certificate().Raw}))
	return s, caFile
}

func writeFile(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// serviceAccount writes a key of a service account whose tokens come from tokenURL.
func serviceAccount(t *testing.T, tokenURL string) (file string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	content, err := json.Marshal(map[string]string{"type": "service_account", "project_id": "p", "private_key_id": "1",
		"private_key":  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		"client_email": "walbaton@p.iam.example", "token_uri": tokenURL})
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "google.json")
	writeFile(t, file, content)
	return file
}

// openAt opens a prefix of bucket "wal" on a server, with a low bound for single requests.
func openAt(t *testing.T, endpoint, query string) *gcs.Store {
	t.Helper()
	s, err := gcs.Open(t.Context(), "gcs://wal/some/prefix?endpoint="+endpoint+query, gcs.Options{ResumableAbove: 300 << 10})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func fail(w http.ResponseWriter, status int, reason, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"code": status, "message": message,
		"errors": []map[string]string{{"domain": "global", "reason": reason, "message": message}}}})
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func sum(data []byte) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))))
}

func (s *stub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client went away; half a body is never stored
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.URL.Path == "/token" {
		s.tokens++
		reply(w, map[string]any{"access_token": bearer, "token_type": "Bearer", "expires_in": 3600})
		return
	}
	if s.secured && r.Header.Get("Authorization") != "Bearer "+bearer {
		fail(w, http.StatusUnauthorized, "required", "Anonymous caller does not have access.")
		return
	}
	path, upload := strings.CutPrefix(r.URL.Path, "/upload")
	path = strings.TrimPrefix(path, "/storage/v1/b/")
	bucket, rest, _ := strings.Cut(path, "/")
	if bucket != "wal" {
		fail(w, http.StatusNotFound, "notFound", "The specified bucket does not exist.")
		return
	}
	name := strings.TrimPrefix(strings.TrimPrefix(rest, "o"), "/")
	switch {
	case upload:
		s.upload(w, r, body)
	case rest == "":
		reply(w, s.bucket)
	case name == "":
		s.list(w, r)
	default:
		s.object(w, r, name)
	}
}

func (s *stub) object(w http.ResponseWriter, r *http.Request, name string) {
	o, there := s.objects[name]
	switch {
	case !there:
		fail(w, http.StatusNotFound, "notFound", "No such object: wal/"+name)
	case r.Method == http.MethodDelete:
		delete(s.objects, name)
		w.WriteHeader(http.StatusNoContent)
	case r.URL.Query().Get("alt") == "media":
		w.Header().Set("X-Goog-Hash", "crc32c="+sum(o.data))
		w.Header().Set("X-Goog-Generation", strconv.FormatInt(o.generation, 10))
		http.ServeContent(w, r, "", time.Now(), bytes.NewReader(o.data))
	default:
		reply(w, resource(name, o))
	}
}

func resource(name string, o object) map[string]any {
	return map[string]any{"kind": "storage#object", "name": name, "size": strconv.Itoa(len(o.data)), "crc32c": sum(o.data),
		"updated": time.Now().UTC().Format(time.RFC3339)}
}

func (s *stub) list(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	limit, _ := strconv.Atoi(q.Get("maxResults"))
	var names []string
	for name := range s.objects {
		if strings.HasPrefix(name, q.Get("prefix")) && name >= q.Get("startOffset") && name >= q.Get("pageToken") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	page := map[string]any{"kind": "storage#objects"}
	if len(names) > limit {
		page["nextPageToken"], names = names[limit], names[:limit]
	}
	items := []map[string]any{}
	for _, name := range names {
		items = append(items, resource(name, s.objects[name]))
	}
	page["items"] = items
	reply(w, page)
}

func (s *stub) upload(w http.ResponseWriter, r *http.Request, body []byte) {
	q := r.URL.Query()
	if id := q.Get("upload_id"); id != "" {
		s.chunk(w, r, id, body)
		return
	}
	if q.Get("ifGenerationMatch") != "0" {
		s.t.Errorf("an upload without ifGenerationMatch=0: %s", r.URL.RawQuery)
	}
	if q.Get("uploadType") == "multipart" {
		meta, data, err := parts(r.Header.Get("Content-Type"), body)
		if err != nil {
			fail(w, http.StatusBadRequest, "parseError", err.Error())
			return
		}
		s.store(w, meta, data)
		return
	}
	var meta map[string]any
	if err := json.Unmarshal(body, &meta); err != nil {
		fail(w, http.StatusBadRequest, "parseError", err.Error())
		return
	}
	s.ids++
	id := strconv.FormatInt(s.ids, 10)
	s.sessions[id] = &session{meta: meta}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	w.Header().Set("Location", fmt.Sprintf("%s://%s/upload/storage/v1/b/wal/o?upload_id=%s", scheme, r.Host, id))
	reply(w, map[string]any{})
}

func (s *stub) chunk(w http.ResponseWriter, r *http.Request, id string, body []byte) {
	session, ok := s.sessions[id]
	if !ok {
		fail(w, http.StatusGone, "uploadBrokenConnection", "no such session")
		return
	}
	session.data = append(session.data, body...)
	if strings.HasSuffix(r.Header.Get("Content-Range"), "/*") {
		w.Header().Set("X-Http-Status-Code-Override", "308")
		return
	}
	delete(s.sessions, id)
	s.store(w, session.meta, session.data)
}

func parts(contentType string, body []byte) (meta map[string]any, data []byte, err error) {
	_, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return nil, nil, err
	}
	m := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	first, err := m.NextPart()
	if err != nil {
		return nil, nil, err
	}
	if err := json.NewDecoder(first).Decode(&meta); err != nil {
		return nil, nil, err
	}
	second, err := m.NextPart()
	if err != nil {
		return nil, nil, err
	}
	data, err = io.ReadAll(second)
	if _, end := m.NextPart(); err == nil && end != io.EOF {
		err = fmt.Errorf("after the data: %w", end)
	}
	return meta, data, err
}

func (s *stub) store(w http.ResponseWriter, meta map[string]any, data []byte) {
	name, _ := meta["name"].(string)
	if got, want := meta["crc32c"], sum(data); got != want {
		s.t.Errorf("put %s: crc32c is %q, want %q", name, got, want)
	}
	if _, taken := s.objects[name]; taken {
		fail(w, http.StatusPreconditionFailed, "conditionNotMet", "At least one of the pre-conditions you specified did not hold.")
		return
	}
	s.ids++
	s.objects[name] = object{data, s.ids}
	reply(w, resource(name, s.objects[name]))
}
