package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/walbaton/walbaton/archiver"
)

// Tab completes names that the sidecar knows.
func TestCompletionAsksTheSidecar(t *testing.T) {
	st := Status{Members: []MemberStatus{{Name: "n1"}, {Name: "n2"}}, Alarms: []archiver.Alarm{{Name: "000000010000000000000007"}, {Name: "00000002.history"}},
		Failed: map[string]string{"000000010000000000000007": "refused"}, Archive: ArchiveStatus{Oldest: "000000010000000000000005"}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(st) }))
	defer server.Close()
	config := filepath.Join(t.TempDir(), "walbaton.yml")
	if err := os.WriteFile(config, []byte("listen: "+strings.TrimPrefix(server.URL, "http://")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"explain":          "000000010000000000000005\n000000010000000000000007\n00000002.history\n:4\n",
		"resolve":          "000000010000000000000005\n000000010000000000000007\n00000002.history\n:4\n",
		"resolve --member": "n1\nn2\n:4\n",
		"explain x":        ":4\n", // it takes one
	} {
		var stdout, stderr bytes.Buffer
		args := append([]string{"__complete"}, strings.Fields(line)...)
		env := func(name string) string { return map[string]string{"WALBATON_CONFIG": config}[name] }
		if code := execute(t.Context(), append(args, ""), world{env, &stdout, &stderr}); code != 0 || stdout.String() != want {
			t.Errorf("%s: exit %d, %q, want %q", line, code, stdout.String(), want)
		}
	}
}
