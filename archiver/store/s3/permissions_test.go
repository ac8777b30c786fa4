//go:build servers

package s3_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/s3"
	"github.com/walbaton/walbaton/archiver/store/storetest"
	"github.com/walbaton/walbaton/archiver/store/storetest/servers"
)

// policy is an IAM policy as docs/stores.md has it.
type policy struct {
	Version   string
	Statement []statement
}

type statement struct {
	Effect           string
	Action, Resource []string
}

// documented reads the policies of docs/stores.md, by the heading above each.
func documented(t *testing.T) map[string]policy {
	t.Helper()
	page, err := os.ReadFile("../../../docs/stores.md")
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]policy)
	for _, m := range regexp.MustCompile("(?s)\\*\\*Policy of ([a-z ]+)\\.\\*\\*.*?```json\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		var p policy
		if err := json.Unmarshal([]byte(m[2]), &p); err != nil {
			t.Fatalf("policy of %s: %v", m[1], err)
		}
		found[m[1]] = p
	}
	return found
}

// without is a policy that lacks one action.
func (p policy) without(action string) policy {
	cut := policy{Version: p.Version}
	for _, s := range p.Statement {
		s.Action = slices.DeleteFunc(slices.Clone(s.Action), func(a string) bool { return a == action })
		if len(s.Action) > 0 {
			cut.Statement = append(cut.Statement, s)
		}
	}
	return cut
}

func (p policy) actions() (all []string) {
	for _, s := range p.Statement {
		all = append(all, s.Action...)
	}
	return all
}

// as opens the bucket with nothing but what a policy permits.
func as(t *testing.T, server *servers.Server, p policy) *s3.Store {
	t.Helper()
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	role, err := server.AssumeRole(t.Context(), strings.ReplaceAll(string(text), "BUCKET", "wal"))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range role.Environ() {
		t.Setenv(name, value)
	}
	return openOn(t, server, "wal", "", s3.Options{MultipartAbove: options.MultipartAbove, PartSize: options.PartSize})
}

// The policies of docs/stores.md are enough for whom they are for, and nothing in them is too much: without any one of
// their actions what needs it is refused.
func TestPermissions(t *testing.T) {
	server := start(t, servers.MinIO, false)
	full := openOn(t, server, "wal", "", options)
	policies := documented(t)
	rights := map[string][]storetest.Right{"a restore host": storetest.Restores(), "a sidecar": storetest.Ships(), "who deletes": storetest.Expires()}
	// What each action is for. Of a multipart upload's abort nobody hears. Without s3:ListBucket Amazon says 403 of an absent key, too;
	// MinIO says that it is absent.
	needs := map[string][]storetest.Right{
		"s3:GetObject":    {storetest.Get, storetest.Head, storetest.Miss},
		"s3:ListBucket":   {storetest.List},
		"s3:PutObject":    {storetest.Put},
		"s3:DeleteObject": {storetest.Delete},
	}
	for who, may := range rights {
		p, ok := policies[who]
		if !ok {
			t.Fatalf("docs/stores.md has no policy of %s", who)
		}
		t.Run(who, func(t *testing.T) { storetest.Permissions(t, full, as(t, server, p), may) })
		for _, action := range p.actions() {
			lacks, known := needs[action]
			if !known {
				continue
			}
			t.Run(who+" without "+action, func(t *testing.T) {
				left := slices.DeleteFunc(slices.Clone(may), func(r storetest.Right) bool { return slices.Contains(lacks, r) })
				for right, err := range storetest.Permissions(t, full, as(t, server, p.without(action)), left) {
					if !strings.Contains(err.Error(), "permission denied (403") {
						t.Errorf("%s: %v, which is not what docs/stores.md says", right, err)
					}
				}
			})
		}
	}
	t.Run("versions", func(t *testing.T) {
		p := policies["who deletes"]
		if _, err := store.Hides(t.Context(), as(t, server, p)); err != nil {
			t.Errorf("with s3:GetBucketVersioning: %v", err)
		}
		if _, err := store.Hides(t.Context(), as(t, server, p.without("s3:GetBucketVersioning"))); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("without s3:GetBucketVersioning: got %v, want fs.ErrPermission", err)
		}
	})
}
