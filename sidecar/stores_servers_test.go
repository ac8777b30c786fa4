//go:build servers

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/azure"
	"github.com/walbaton/walbaton/archiver/store/gcs"
	"github.com/walbaton/walbaton/archiver/store/storetest/servers"
)

// cloud is an archive at Google's or Azure's emulator, and what walbaton.yml says of it besides its address.
type cloud struct {
	url  string
	yaml string // further keys of archive:
	full store.Store
}

func clouds(t *testing.T) map[string]cloud {
	t.Helper()
	o := servers.Options{Buckets: []string{"wal"}}
	started := func(s *servers.Server, err error) *servers.Server {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Stop(); err != nil {
				t.Error(err)
			}
		})
		return s
	}
	o.Dir = t.TempDir()
	google := started(servers.FakeGCS(t.Context(), o)).CloudURL("gcs://wal", "some/prefix")
	atGoogle, err := gcs.Open(t.Context(), google, gcs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	o.Dir = t.TempDir()
	azurite := started(servers.Azurite(t.Context(), o))
	microsoft := azurite.CloudURL("azure://"+servers.AzureAccount+"/wal", "some/prefix")
	atMicrosoft, err := azure.Open(microsoft, azure.Options{AccountKey: servers.AzureAccountKey})
	if err != nil {
		t.Fatal(err)
	}
	token, err := azurite.SAS("wal", "rl") // a restore host's
	if err != nil {
		t.Fatal(err)
	}
	secret := writeFile(t, t.TempDir(), "sas", token+"\n")
	return map[string]cloud{
		"gcs":   {url: google, full: atGoogle},
		"azure": {url: microsoft, yaml: ", sas_token_file: " + secret, full: atMicrosoft},
	}
}

// copyInto puts every file of a file archive under its key.
func copyInto(t *testing.T, dir string, s store.Store) {
	t.Helper()
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return s.Put(t.Context(), strings.TrimPrefix(path, dir+"/"), bytes.NewReader(b))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The verbs that read an archive say of one at Google's or Azure's what they say of the same one in a folder, and fetch gives its bytes; with the
// permissions of a restore host.
func TestVerbsOverClouds(t *testing.T) {
	dir, w := writeArchive(t, testSystemID)
	good := w.Full()[1]
	for name, c := range clouds(t) {
		t.Run(name, func(t *testing.T) {
			copyInto(t, dir, c.full)
			file := func(keys string) string {
				return writeFile(t, t.TempDir(), "walbaton.yml", "scope: shop\narchive: {url: '"+c.url+"'"+keys+"}\n")
			}
			config := file(c.yaml)
			address := c.full.String()
			for _, verb := range [][]string{{"list"}, {"list", "--json"}, {"verify", "--deep"}, {"verify", "--json"}} {
				code, out, errs := run(t, append(verb, "--config", config)...)
				wantCode, want, _ := run(t, append(verb, "--archive", "file://"+dir, "--scope", "shop")...)
				if got := strings.ReplaceAll(out, address, "file://"+dir); code != wantCode || timeless(got) != timeless(want) || errs != "" {
					t.Errorf("%v: exit %d, got\n%s%s, want exit %d\n%s", verb, code, got, errs, wantCode, want)
				}
			}
			pg := dataDirectory(t)
			writeFile(t, pg, "recovery.signal", "")
			dst := filepath.Join(pg, "pg_wal", "RECOVERYXLOG")
			if code, _, errs := run(t, "fetch", "--config", config, good.String(), dst); code != 0 {
				t.Errorf("fetch: exit %d: %s", code, errs)
			}
			if b, err := os.ReadFile(dst); err != nil || !bytes.Equal(b, w.Segment(good)) {
				t.Errorf("fetch: %d bytes, %v", len(b), err)
			}
			if code, _, errs := run(t, "fetch", "--config", config, "000000020000000000000007", dst); code != 1 || !strings.Contains(errs, "is not in the archive") {
				t.Errorf("fetch of the next one: exit %d: %s", code, errs)
			}
			// A clone under a scope of its own reads its origin there.
			clone := writeFile(t, t.TempDir(), "clone.yml", "scope: clone\narchive: {url: 'file://"+t.TempDir()+"'"+c.yaml+"}\nrestore_from: ['"+c.url+"#shop']\n")
			if code, _, errs := run(t, "fetch", "--config", clone, good.String(), dst); code != 0 {
				t.Errorf("fetch of a clone: exit %d: %s", code, errs)
			}
			// What is wrong with the place is no end of the WAL.
			elsewhere := func(old, new, keys string) string {
				return writeFile(t, t.TempDir(), "walbaton.yml", "scope: shop\narchive: {url: '"+strings.Replace(c.url, old, new, 1)+"'"+keys+"}\n")
			}
			wrong := map[string]string{elsewhere("/prefix", "/elsewhere", c.yaml): "check archive.url and scope"}
			if name == "gcs" {
				wrong[elsewhere("/wal/", "/other/", "")] = "a bucket that does not exist"
			} else {
				wrong[elsewhere("/wal/", "/other/", c.yaml)] = "permission denied (403 " // a token for another container
				wrong[file(", sas_token: 'sv=2021-10-04&sig=bm8='")] = "permission denied (403 "
				wrong[elsewhere("?", "?sas_token_file=/no/such/file&", "")] = "no such file"
			}
			for config, said := range wrong {
				code, _, errs := run(t, "fetch", "--config", config, "--restore-patience", "1s", "000000020000000000000007", dst)
				if code != exitCannotSay || !strings.Contains(errs, said) || strings.Contains(errs, "sig=") {
					t.Errorf("exit %d, want %d: %s, want %q", code, exitCannotSay, errs, said)
				}
			}
		})
	}
}

// timeless is a text without how long something took.
func timeless(s string) string {
	var kept []string
	for line := range strings.Lines(s) {
		if !strings.Contains(line, "second") && !strings.Contains(line, "took") && !strings.Contains(line, "duration") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}
