//go:build drills

package drill

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// location is what the test needs of `walbaton locate --json`.
type location struct {
	Reachable bool
	Why       string
	Segment   string
	Backup    struct {
		Name  string
		Start string `json:"start_lsn"`
	}
	Settings []string
}

// locate asks walbaton where a target lies in the archive; the exit code says whether it can be reached.
func (p *pitr) locate(t *testing.T, args ...string) (l location) {
	t.Helper()
	cmd := p.Command(p.ctx, "walbaton", append([]string{"locate", "--json", "--archive", p.Store.URL(), "--scope", p.o.Scope}, args...)...)
	out, err := cmd.Output()
	var code *exec.ExitError
	if err != nil && !errors.As(err, &code) {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &l); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if l.Reachable != (cmd.ProcessState.ExitCode() == 0) {
		t.Errorf("exit %d, and reachable %v", cmd.ProcessState.ExitCode(), l.Reachable)
	}
	return l
}

// located: a real recovery with the settings that walbaton locate prints, from the base backup that it names, has the rows of that moment.
func (p *pitr) located(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want commit
	}{
		"time on the first timeline":  {[]string{"--time", p.ordinary.at}, p.ordinary},
		"time between two promotions": {[]string{"--time", p.second.at}, p.second},
		"time on the newest timeline": {[]string{"--time", p.last.at}, p.last},
		"time on the branch":          {[]string{"--time", p.good.at, "--timeline", "2"}, p.good},
		"LSN on the branch":           {[]string{"--lsn", p.mistake.record, "--timeline", "2"}, p.mistake},
		"LSN":                         {[]string{"--lsn", p.third.record}, p.third},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := p.locate(t, tc.args...)
			if !l.Reachable || len(l.Settings) != 3 || l.Backup.Name == "" {
				t.Fatalf("got %+v", l)
			}
			tg := target{settings: map[string]string{}, want: tc.want.rows}
			for _, s := range l.Settings[1:] { // restore_command has no path
				key, value, _ := strings.Cut(s, " = ")
				tg.settings[key] = strings.Trim(value, "'")
			}
			label, err := os.ReadFile(filepath.Join(p.backup2, "backup_label"))
			if err != nil {
				t.Fatal(err)
			}
			tg.backup2 = strings.Contains(string(label), "START WAL LOCATION: "+l.Backup.Start+" ")
			t.Logf("%s, from %s (the second backup: %v), in %s", strings.Join(l.Settings[1:], ", "), l.Backup.Name, tg.backup2, l.Segment)
			s := p.recover(t, tg)
			if err := s.Writable(p.ctx); err != nil {
				t.Fatal(err)
			}
			p.restored(t, s, tg.want)
		})
	}
	for name, at := range map[string]string{"before the archive": "2001-01-01 00:00:00+00", "in the future": "2101-01-01 00:00:00+00", "the last commit of all": p.end.at} {
		if l := p.locate(t, "--time", at); l.Reachable || l.Why == "" {
			t.Errorf("%s: got %+v", name, l)
		}
	}
}
