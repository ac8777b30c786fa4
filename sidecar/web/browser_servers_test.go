//go:build servers

package web

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/sidecar/web/webtest"
)

// screenshots is where pictures go; the test makes none without it. They are made as the page is, from what live clusters were (testdata):
//
//	go test -tags servers -run TestPageInBrowser ./sidecar/web -screenshots ../../docs/screenshots
var screenshots = flag.String("screenshots", "", "write pictures of the page to this `folder`")

// recorded gives the states of testdata, which TestDrillPage recorded.
func recorded(t *testing.T) map[string]json.RawMessage {
	t.Helper()
	files, err := filepath.Glob("testdata/cluster-*.json")
	if err != nil || len(files) < 4 {
		t.Fatalf("testdata has %d states: %v", len(files), err)
	}
	out := map[string]json.RawMessage{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out[strings.TrimSuffix(strings.TrimPrefix(filepath.Base(f), "cluster-"), ".json")] = b
	}
	return out
}

// Each state is shown on phones and wide screens, in light and dark, without a complaint; the keyboard reaches everything, and nobody else is asked.
func TestPageInBrowser(t *testing.T) {
	states := recorded(t)
	var now json.RawMessage
	src := still()
	src.Cluster = func(context.Context) any { return now }
	b := webtest.Start(t)
	for name, state := range states {
		now = state
		at, stop := serve(t, src, Options{})
		b.Screen(1440, 900, false)
		b.Open("http://" + at + "/")
		b.Until(20*time.Second, "the page is live", `document.body.className === "live"`)
		webtest.Eval[bool](b, `document.querySelectorAll("details").forEach(e => e.open = true) || true`)
		for _, width := range []int64{320, 360, 768, 1440} {
			for _, dark := range []bool{false, true} {
				b.Screen(width, 900, dark)
				b.Until(5*time.Second, "it has the width", fmt.Sprintf("innerWidth === %d", width))
				for _, wrong := range b.Audit() {
					t.Errorf("%s, %d pixels, dark %v: %s", name, width, dark, wrong)
				}
			}
		}
		webtest.Eval[bool](b, `document.querySelectorAll("details").forEach(e => e.open = false) || true`)
		for _, word := range []string{"[object", "undefined", "NaN", "null", "Invalid"} {
			if shown := b.Text("body"); strings.Contains(shown, word) {
				t.Errorf("%s: the page shows %q:\n%s", name, word, shown)
			}
		}
		picture(t, b, name)
		for _, s := range b.Strangers("http://" + at + "/") {
			if strings.HasPrefix(s, "http://127.0.0.1:") {
				continue // of a state before
			}
			t.Errorf("%s: the page asks %s", name, s)
		}
		stop()
	}
	for _, c := range b.Complaints() {
		t.Errorf("the page complains: %s", c)
	}
}

func picture(t *testing.T, b *webtest.Browser, state string) {
	t.Helper()
	if *screenshots == "" {
		return
	}
	for _, width := range []int64{360, 768, 1440} {
		for _, theme := range []string{"light", "dark"} {
			b.Screen(width, 900, theme == "dark")
			b.Until(5*time.Second, "it has the width", fmt.Sprintf("innerWidth === %d", width))
			time.Sleep(100 * time.Millisecond) // it is drawn once more when the width changes
			path := filepath.Join(*screenshots, fmt.Sprintf("%s-%d-%s.png", state, width, theme))
			b.Picture(path)
			info, err := os.Stat(path)
			if err != nil || info.Size() > 150_000 {
				t.Errorf("%s has %d bytes: %v", path, info.Size(), err)
			}
		}
	}
}

// With the keyboard alone one comes to everything, sees where one is, and changes the theme; it stays so after a reload.
func TestPageByKeyboard(t *testing.T) {
	healthy, src := recorded(t)["healthy"], still()
	src.Cluster = func(context.Context) any { return healthy }
	at, _ := serve(t, src, Options{})
	b := webtest.Start(t)
	b.Screen(1440, 900, false)
	b.Open("http://" + at + "/")
	b.Until(20*time.Second, "the page is live", `document.body.className === "live"`)
	var reached []string
	for range 12 {
		b.Press(webtest.Tab)
		reached = append(reached, webtest.Eval[string](b, `(e => e === document.body ? "end" : e.value || e.textContent.trim().slice(0, 30))(document.activeElement)`))
		if seen := webtest.Eval[bool](b, `(e => { const s = getComputedStyle(e.type === "radio" ? e.nextElementSibling : e); return e === document.body || parseFloat(s.outlineWidth) >= 2 && s.outlineStyle !== "none"; })(document.activeElement)`); !seen {
			t.Errorf("one does not see that %s has the focus", reached[len(reached)-1])
		}
		if reached[len(reached)-1] == "auto" {
			b.Press(webtest.Right)
			b.Press(webtest.Right)
		}
	}
	all := strings.Join(reached, ", ")
	for _, want := range []string{"Skip to the state", "auto", "Timelines as a table", "Rates as a table", "cluster.json", "status.json", "metrics"} {
		if !strings.Contains(all, want) {
			t.Errorf("the Tab key does not come to %q; it comes to %s", want, all)
		}
	}
	dark := `getComputedStyle(document.body).colorScheme + " " + document.documentElement.dataset.theme`
	if got := webtest.Eval[string](b, dark); got != "dark dark" {
		t.Errorf("after two presses of the arrow key the theme is %q", got)
	}
	b.Open("http://" + at + "/")
	if got := webtest.Eval[string](b, dark); got != "dark dark" {
		t.Errorf("after a reload it is %q", got)
	}
	for _, c := range b.Complaints() {
		t.Errorf("the page complains: %s", c)
	}
}
