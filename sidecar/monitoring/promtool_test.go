//go:build servers

package monitoring

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// promtool runs it in the top folder of the checkout.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "promtool", args...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// The command in docs/monitoring.md, as it is typed there: Prometheus takes the rules.
func TestRulesForPrometheus(t *testing.T) {
	blocks := regexp.MustCompile("(?ms)^```sh run=TestRulesForPrometheus\n(.*?)^```$").FindAllStringSubmatch(file(t, "docs/monitoring.md"), -1)
	if len(blocks) != 1 {
		t.Fatalf("docs/monitoring.md has %d blocks for this test", len(blocks))
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-ec", blocks[0][1])
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// Prometheus understands every query of the dashboard: promtool reads them as rules, with numbers for Grafana's variables.
func TestDashboardQueries(t *testing.T) {
	variables := strings.NewReplacer("$__rate_interval", "1m", "$namespace", ".*", "$scope", "shop", "$member", "n1")
	var b strings.Builder
	b.WriteString("groups:\n- name: dashboard\n  rules:\n")
	for i, q := range dashboard(t).Queries() {
		fmt.Fprintf(&b, "  - record: dashboard:query:%d\n    expr: '%s'\n", i, variables.Replace(strings.ReplaceAll(q, "'", "''")))
	}
	name := filepath.Join(t.TempDir(), "dashboard.yaml")
	if err := os.WriteFile(name, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", name)
}
