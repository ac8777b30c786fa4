package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const threeArchives = `
scope: shop
archive: {codec: lz4}
archives:
  - {name: near, url: file:///near}
  - name: far
    url: s3://bucket/far
    access_key_id: AK
    secret_access_key_file: secret
  - {name: cold, url: "s3://cold/${PREFIX}", required: false}
`

func loadArchives(t *testing.T, text string, flags map[string]string) (Config, error) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "walbaton.yml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("SK\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{"config": path, "dcs-kind": "static", "name": "n1", "postgres-data-dir": "/pgdata"}
	for k, v := range flags {
		all[k] = v
	}
	return loadConfig(sources{func(name string) string { return map[string]string{"PREFIX": "x"}[name] }, all})
}

// Each archive of the list has its own address and credentials, and the codec is that of all.
func TestArchivesOfTheFile(t *testing.T) {
	c, err := loadArchives(t, threeArchives, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []ArchiveConfig{
		{Name: "near", Required: true, URL: "file:///near"},
		{Name: "far", Required: true, URL: "s3://bucket/far", AccessKeyID: "AK", SecretAccessKey: "SK"},
		{Name: "cold", URL: "s3://cold/x"},
	}
	if !reflect.DeepEqual(c.Archives, want) {
		t.Errorf("archives: got %+v, want %+v", c.Archives, want)
	}
	if c.Archive.URL != "file:///near" || c.Archive.Codec != "lz4" {
		t.Errorf("what verbs read by default: got %+v, want the first archive", c.Archive)
	}
	if err := c.needServer(); err != nil {
		t.Errorf("the sidecar refuses: %v", err)
	}
	if got := c.ofArchive(want[1]); got.Archive.SecretAccessKey != "SK" || got.Archive.Codec != "lz4" || got.Archives != nil {
		t.Errorf("one of them: got %+v", got.Archive)
	}
}

// A list of one is one archive, with its credentials.
func TestListOfOneArchive(t *testing.T) {
	c, err := loadArchives(t, "scope: shop\narchives:\n- {name: far, url: s3://b/p, access_key_id: AK, secret_access_key: SK}\n", nil)
	if err != nil || c.Archives != nil || c.Archive.URL != "s3://b/p" || c.Archive.SecretAccessKey != "SK" || c.Archive.Codec != "zstd" {
		t.Errorf("got %+v (%v)", c.Archive, err)
	}
	if err := c.needServer(); err != nil {
		t.Errorf("the sidecar refuses: %v", err)
	}
}

// --archive chooses one by its name or address, for reading; the sidecar needs them all.
func TestChooseArchive(t *testing.T) {
	for flag, want := range map[string]string{"far": "s3://bucket/far", "s3://cold/x": "s3://cold/x", "file:///third": "file:///third"} {
		c, err := loadArchives(t, threeArchives, map[string]string{"archive": flag})
		if err != nil || c.Archive.URL != want || c.Archives != nil || c.Archive.Codec != "lz4" {
			t.Errorf("--archive %s: got %+v (%v), want %s alone", flag, c.Archive, err, want)
			continue
		}
		if flag == "far" && c.Archive.SecretAccessKey != "SK" {
			t.Errorf("--archive far has not its credentials: %+v", c.Archive)
		}
		if err := c.needServer(); err == nil || !strings.Contains(err.Error(), "--archive") {
			t.Errorf("the sidecar with --archive %s: got %v, want that it is refused", flag, err)
		}
	}
}

func TestArchivesThatCannotBe(t *testing.T) {
	for _, tc := range []struct{ name, text, flag, want string }{
		{"both", "archive: {url: file:///a}\narchives: [{name: a, url: file:///b}]", "", "archive.url is given, too"},
		{"no list", "archives: {name: a, url: file:///a}", "", "must be a list"},
		{"empty", "archives: []", "", "must be a list"},
		{"words", "archives: [file:///a]", "", "each of archives must hold keys"},
		{"no url", "archives: [{name: a}]", "", "has no url"},
		{"no name", "archives: [{url: file:///a}]", "", "needs a name"},
		{"bad name", "archives: [{name: a/b, url: file:///a}]", "", "needs a name"},
		{"twice", "archives: [{name: a, url: file:///a}, {name: a, url: file:///b}]", "", "comes twice"},
		{"one address", "archives: [{name: a, url: file:///a}, {name: b, url: file:///a}]", "", "comes twice"},
		{"none required", "archives: [{name: a, url: file:///a, required: false}]", "", "none of the archives is required"},
		{"required what", "archives: [{name: a, url: file:///a, required: maybe}]", "", `"maybe" is neither true nor false`},
		{"codec", "archives: [{name: a, url: file:///a, codec: lz4}]", "", `unknown key "codec"`},
		{"half a key", "archives: [{name: a, url: s3://a/b, access_key_id: AK}]", "", "belong together"},
		{"no such", "archives: [{name: a, url: file:///a}, {name: b, url: file:///b}]", "c", `there is no archive "c"`},
	} {
		flags := map[string]string{}
		if tc.flag != "" {
			flags["archive"] = tc.flag
		}
		if _, err := loadArchives(t, tc.text, flags); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want an error with %q", tc.name, err, tc.want)
		}
	}
}
