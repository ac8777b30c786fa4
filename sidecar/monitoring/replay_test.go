//go:build servers

package monitoring

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// What people read: each alert with all that it says, from values that were made up.
func TestAlertsRead(t *testing.T) {
	promtool(t, "test", "rules", "sidecar/monitoring/testdata/words.yaml")
	text := file(t, "sidecar/monitoring/testdata/words.yaml")
	for _, r := range rules(t) {
		if n := strings.Count(text, "alertname: "+r.Alert+"\n"); n < 2 || !regexp.MustCompile(`alertname: `+r.Alert+`\n +exp_alerts: \[\]`).MatchString(text) {
			t.Errorf("%s is looked at %d times, want twice: when it fires, and when it does not", r.Alert, n)
		}
	}
}

// recorded is what TestDrillAlerts recorded.
func recorded(t *testing.T) *Recording {
	t.Helper()
	f, err := os.Open("testdata/drill.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := ReadRecording(f)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Of a real cluster: nothing fires through two switchovers and the restart of a sidecar, and each failure makes its own alerts fire, and no others.
func TestAlertsReplayed(t *testing.T) {
	r := recorded(t)
	for _, p := range Replays() {
		t.Run(p.Step, func(t *testing.T) {
			t.Parallel()
			if err := r.Check(t.Context(), root, p); err != nil {
				t.Error(err)
			}
		})
	}
}

// Each alert fires in a replay, and is silent in another one.
func TestEveryAlertIsReplayed(t *testing.T) {
	for _, r := range rules(t) {
		fires, silent := 0, 0
		for _, p := range Replays() {
			if slices.Contains(p.Fires, r.Alert) {
				fires++
			} else {
				silent++
			}
		}
		if fires == 0 || silent == 0 {
			t.Errorf("%s fires in %d replays and is silent in %d", r.Alert, fires, silent)
		}
	}
	if longest := time.Hour; Replays()[0].After < longest {
		t.Errorf("what is in order is held for %v, shorter than the longest time of a rule", Replays()[0].After)
	}
}

// The replay itself: an alert that must not have fired, fires too few, or too many, is an error.
func TestReplay(t *testing.T) {
	r := NewRecording(time.Unix(1_000_000, 0), 2*time.Second)
	scrape := func(text string) {
		if err := r.Add(map[string]string{"n1": text}, func(string) bool { return true }); err != nil {
			t.Fatal(err)
		}
	}
	age := "walbaton_oldest_missing_age_seconds{member=\"n1\",scope=\"shop\"} %d\nwalbaton_wal_disk_lasts_seconds{member=\"n1\",scope=\"shop\"} +Inf\n"
	r.Step("order")
	scrape(fmt.Sprintf(age, 0))
	scrape(fmt.Sprintf(age, 0))
	r.Step("waits")
	for _, seconds := range []int{1, 3, 5, 7} {
		scrape(fmt.Sprintf(age, seconds))
	}
	r.Step("gone")
	scrape("")
	for _, tc := range []struct {
		p    Replay
		good bool
	}{
		{Replay{Step: "order", Before: time.Hour, After: time.Hour, Quiet: true}, true},
		{Replay{Step: "order", After: time.Hour, Fires: []string{"WalbatonMissingAge"}}, false},
		{Replay{Step: "waits", After: 10 * time.Minute}, true},
		{Replay{Step: "waits", After: 20 * time.Minute, Fires: []string{"WalbatonMissingAge"}}, true},
		{Replay{Step: "waits", After: 20 * time.Minute}, false},
		{Replay{Step: "waits", After: 20 * time.Minute, Fires: []string{"WalbatonMissingAge"}, Quiet: true}, false},
		{Replay{Step: "gone", After: 20 * time.Minute}, true},
		{Replay{Step: "never"}, false},
	} {
		if err := r.Check(t.Context(), root, tc.p); (err == nil) != tc.good {
			t.Errorf("%+v: %v", tc.p, err)
		}
	}
}
