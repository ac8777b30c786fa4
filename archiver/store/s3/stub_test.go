package s3_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"encoding/xml"
	"fmt"
	"hash/crc32"
	"io"
	"log"
	"net"
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

	"github.com/walbaton/walbaton/archiver/store/s3"
)

const (
	accessKey = "stub-access"
	secretKey = "stub-secret"
)

// stub is as much of S3 as the driver uses, in memory: the quick tests need no server. What real servers
// do is seen in servers_test.go. It checks who asks, and CRCs, but no signatures.
type stub struct {
	t *testing.T

	mu          sync.Mutex
	objects     map[string][]byte // by key; there is one bucket, "wal"
	uploads     map[string]map[int][]byte
	ids         int
	connections int
	payload     string // how the last PUT signed its body
}

func newStub(t *testing.T) (s *stub, url string) {
	s, server := newServer(t)
	server.Start()
	return s, server.URL
}

// newTLSStub returns the certificate to trust as well.
func newTLSStub(t *testing.T) (s *stub, url, caFile string) {
	s, server := newServer(t)
	server.StartTLS()
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(caFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	return s, server.URL, caFile
}

func newServer(t *testing.T) (*stub, *httptest.Server) {
	s := &stub{t: t, objects: make(map[string][]byte), uploads: make(map[string]map[int][]byte)}
	server := httptest.NewUnstartedServer(s)
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if state == http.StateNew {
			s.connections++
		}
	}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(server.Close)
	return s, server
}

// openAt opens a prefix of bucket "wal" on a server, with small parts.
func openAt(t *testing.T, endpoint, query string) *s3.Store {
	t.Helper()
	s, err := s3.Open(t.Context(), "s3://wal/some/prefix?endpoint="+endpoint+query, s3.Options{
		AccessKey: accessKey, SecretKey: secretKey, MultipartAbove: 300 << 10, PartSize: 200 << 10})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *stub) pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.uploads)
}

func (s *stub) opened() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.connections
}

func fail(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>says the stub</Message></Error>", code)
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/xml")
	_ = xml.NewEncoder(w).Encode(v)
}

func crc(data []byte) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(data)))
}

func (s *stub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client went away; half a body is never stored
	}
	if !strings.Contains(r.Header.Get("Authorization"), "Credential="+accessKey+"/") {
		fail(w, http.StatusForbidden, "InvalidAccessKeyId")
		return
	}
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if bucket != "wal" {
		fail(w, http.StatusNotFound, "NoSuchBucket")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Method == http.MethodPut {
		if got, want := r.Header.Get("X-Amz-Checksum-Crc32"), crc(body); got != want {
			s.t.Errorf("put %s %s: checksum header is %q, want %q", key, r.URL.RawQuery, got, want)
		}
		s.payload = r.Header.Get("X-Amz-Content-Sha256")
	}
	q := r.URL.Query()
	switch {
	case r.Method == http.MethodPost && q.Has("uploads"):
		s.ids++
		id := strconv.Itoa(s.ids)
		s.uploads[id] = make(map[int][]byte)
		reply(w, struct {
			XMLName  xml.Name `xml:"InitiateMultipartUploadResult"`
			UploadId string
		}{UploadId: id})
	case q.Has("uploadId"):
		s.upload(w, r, key, q.Get("uploadId"), body)
	case r.Method == http.MethodPut:
		s.store(w, r, key, body)
	case r.Method == http.MethodGet && q.Get("list-type") == "2":
		s.list(w, q.Get("prefix"), max(q.Get("start-after"), q.Get("continuation-token")))
	case r.Method == http.MethodDelete:
		delete(s.objects, key)
		w.WriteHeader(http.StatusNoContent)
	default:
		data, ok := s.objects[key]
		if !ok {
			fail(w, http.StatusNotFound, "NoSuchKey")
			return
		}
		http.ServeContent(w, r, "", time.Now(), bytes.NewReader(data))
	}
}

func (s *stub) store(w http.ResponseWriter, r *http.Request, key string, data []byte) {
	if r.Header.Get("If-None-Match") != "*" {
		s.t.Errorf("%s %s without If-None-Match", r.Method, key)
	}
	if _, taken := s.objects[key]; taken {
		fail(w, http.StatusPreconditionFailed, "PreconditionFailed")
		return
	}
	s.objects[key] = data
	if r.Method == http.MethodPost {
		reply(w, struct {
			XMLName xml.Name `xml:"CompleteMultipartUploadResult"`
			ETag    string
		}{ETag: `"done"`})
	}
}

func (s *stub) upload(w http.ResponseWriter, r *http.Request, key, id string, body []byte) {
	parts, ok := s.uploads[id]
	switch {
	case !ok:
		fail(w, http.StatusNotFound, "NoSuchUpload")
	case r.Method == http.MethodPut:
		number, _ := strconv.Atoi(r.URL.Query().Get("partNumber"))
		parts[number] = body
		w.Header().Set("ETag", `"`+crc(body)+`"`)
	case r.Method == http.MethodDelete:
		delete(s.uploads, id)
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodPost:
		var data []byte
		for i := range len(parts) {
			data = append(data, parts[i+1]...)
		}
		delete(s.uploads, id)
		s.store(w, r, key, data)
	}
}

func (s *stub) list(w http.ResponseWriter, prefix, after string) {
	type object struct {
		Key          string
		Size         int
		LastModified time.Time
	}
	result := struct {
		XMLName               xml.Name `xml:"ListBucketResult"`
		Contents              []object
		IsTruncated           bool
		NextContinuationToken string `xml:",omitempty"`
	}{}
	for key, data := range s.objects {
		if strings.HasPrefix(key, prefix) && key > after {
			result.Contents = append(result.Contents, object{key, len(data), time.Now().UTC()})
		}
	}
	slices.SortFunc(result.Contents, func(a, b object) int { return strings.Compare(a.Key, b.Key) })
	if len(result.Contents) > 1000 {
		result.Contents, result.IsTruncated = result.Contents[:1000], true
		result.NextContinuationToken = result.Contents[999].Key
	}
	reply(w, result)
}
