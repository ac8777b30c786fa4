package s3_test

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/walbaton/walbaton/archiver/store/s3"
	"github.com/walbaton/walbaton/archiver/store/storetest"
)

// What the URL says about encryption, class and payer is said with each request that it is for, and with no other.
func TestExtras(t *testing.T) {
	_, url := newStub(t)
	proxy := storetest.NewProxy(t, url)
	s := openAt(t, proxy.URL, "&sse=aws:kms&sse_kms_key_id=arn:aws:kms:eu-central-1:1:key/wal&storage_class=STANDARD_IA&requester_pays=true")
	for key, size := range map[string]int{"small": 1000, "large": 500 << 10} {
		if err := s.Put(t.Context(), key, bytes.NewReader(make([]byte, size))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Head(t.Context(), "small"); err != nil {
		t.Error(err)
	}
	if err := read(s.Get(t.Context(), "small", 0, -1)); err != nil {
		t.Error(err)
	}
	for _, err := range s.List(t.Context(), "", "") {
		if err != nil {
			t.Error(err)
		}
	}
	if err := s.Delete(t.Context(), "small"); err != nil {
		t.Error(err)
	}
	begun := 0
	for _, r := range proxy.Requests() {
		begins := r.Method == "PUT" && !r.Query.Has("partNumber") || r.Query.Has("uploads")
		if begins {
			begun++
		}
		for name, want := range map[string]string{"X-Amz-Server-Side-Encryption": "aws:kms", "X-Amz-Storage-Class": "STANDARD_IA",
			"X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id": "arn:aws:kms:eu-central-1:1:key/wal"} {
			if !begins {
				want = ""
			}
			if got := r.Header.Get(name); got != want {
				t.Errorf("%s %s %v: %s is %q, want %q", r.Method, r.Path, r.Query, name, got, want)
			}
		}
		if got := r.Header.Get("X-Amz-Request-Payer"); got != "requester" {
			t.Errorf("%s %s %v: X-Amz-Request-Payer is %q", r.Method, r.Path, r.Query, got)
		}
	}
	if begun != 2 {
		t.Errorf("got %d beginnings of puts, want 2", begun)
	}

	s = openAt(t, proxy.URL, "")
	if err := s.Put(t.Context(), "plain", strings.NewReader("data")); err != nil {
		t.Fatal(err)
	}
	for _, r := range proxy.Requests() {
		for name := range r.Header {
			if strings.Contains(name, "Encryption") || strings.Contains(name, "Storage-Class") || strings.Contains(name, "Payer") {
				t.Errorf("%s without being asked for", name)
			}
		}
	}
}

func TestOpenExtras(t *testing.T) {
	for query, want := range map[string]string{
		"sse=AES256":                        "",
		"sse=aws:kms":                       "",
		"sse=aws:kms:dsse&sse_kms_key_id=k": "",
		"storage_class=GLACIER_IR":          "",
		"storage_class=COLD":                "",
		"requester_pays=false":              "",
		"sse=aes256":                        `sse "aes256" is none of AES256, aws:kms and aws:kms:dsse`,
		"sse_kms_key_id=k":                  "goes together with sse=aws:kms",
		"sse=AES256&sse_kms_key_id=k":       "goes together with sse=aws:kms",
		"storage_class=GLACIER":             "cannot be read at once",
		"storage_class=DEEP_ARCHIVE":        "cannot be read at once",
		"requester_pays=me":                 `requester_pays "me" is neither true nor false`,
		"sse=AES256&sse=AES256":             "wants one value",
		"sse_kms_key=k":                     `unknown query key "sse_kms_key"`,
	} {
		_, err := s3.Open(t.Context(), "s3://b/p?region=x&"+query, s3.Options{})
		if got := ""; err != nil || want != "" {
			if err != nil {
				got = err.Error()
			}
			if want == "" || !strings.Contains(got, want) {
				t.Errorf("open with %s: got %v, want %q", query, err, want)
			}
		}
	}
}

// docs/stores.md has a row for each key of the URL, and the message for a wrong one names them all.
func TestKeysDocumented(t *testing.T) {
	page, err := os.ReadFile("../../../docs/stores.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## S3\n")
	section, _, _ = strings.Cut(section, "\n## ")
	_, err = s3.Open(t.Context(), "s3://b?nonsense=1", s3.Options{})
	_, known, ok := strings.Cut(fmt.Sprint(err), "known are ")
	if !ok {
		t.Fatalf("got %v", err)
	}
	for _, key := range strings.Split(known, ", ") {
		row := regexp.MustCompile("(?m)^\\| [^|]*`" + key + "`")
		if !row.MatchString(section) {
			t.Errorf("docs/stores.md has no row for %s", key)
		}
	}
}
