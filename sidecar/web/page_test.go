package web

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The page loads nothing from anywhere, and its policy allows exactly its own style and script.
func TestPageIsSelfContained(t *testing.T) {
	at, _ := serve(t, still(), Options{})
	code, h, body := get(t, "http://"+at+"/", "", "")
	if code != 200 {
		t.Fatalf("got %d", code)
	}
	policy := h.Get("Content-Security-Policy")
	for _, tag := range []struct{ name, directive string }{{"style", "style-src"}, {"script", "script-src"}} {
		_, text, _ := strings.Cut(body, "<"+tag.name+">")
		text, _, ok := strings.Cut(text, "</"+tag.name+">")
		if !ok || strings.Count(body, "<"+tag.name) != 1 {
			t.Fatalf("the page has not exactly one %s", tag.name)
		}
		if want := tag.directive + " " + digest(text) + ";"; !strings.Contains(policy, want) {
			t.Errorf("policy %q lacks %q", policy, want)
		}
	}
	for _, part := range []string{"default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'"} {
		if !strings.Contains(policy, part) {
			t.Errorf("policy %q lacks %q", policy, part)
		}
	}
	outside := regexp.MustCompile(`(?:src|href)="(?:https?:)?//|url\(|@import|https?://[a-z0-9.-]+`)
	for _, found := range outside.FindAllString(body, -1) {
		if found != "http://www.w3.org" { // the name of SVG, which nobody loads
			t.Errorf("the page names %q", found)
		}
	}
	if strings.Contains(body, "innerHTML =") || regexp.MustCompile(`\son[a-z]+="|style="`).MatchString(body) {
		t.Error("the page has a handler or a style in its markup, or sets markup as text")
	}
}

// What the script asks for by its id exists, and once.
func TestPageIDs(t *testing.T) {
	ids := map[string]int{}
	for _, m := range regexp.MustCompile(`\sid="([^"]+)"`).FindAllStringSubmatch(indexHTML, -1) {
		ids[m[1]]++
	}
	for id, n := range ids {
		if n != 1 {
			t.Errorf("id %s comes %d times", id, n)
		}
	}
	for _, m := range regexp.MustCompile(`\$\('([^']+)'\)`).FindAllStringSubmatch(pageJS, -1) {
		if ids[m[1]] == 0 {
			t.Errorf("page.js asks for %q, which index.html does not have", m[1])
		}
	}
	for _, m := range regexp.MustCompile(`aria-(?:labelledby|describedby)="([^"]+)"`).FindAllStringSubmatch(indexHTML, -1) {
		if ids[m[1]] == 0 {
			t.Errorf("a label or description is %q, which is not there", m[1])
		}
	}
}

// palette reads the colours of style.css: light and dark.
func palette(t *testing.T) map[string][2]string {
	t.Helper()
	out := map[string][2]string{}
	for _, m := range regexp.MustCompile(`--([a-z-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)`).FindAllStringSubmatch(styleCSS, -1) {
		out[m[1]] = [2]string{m[2], m[3]}
	}
	return out
}

// luminance is that of WCAG 2.2.
func luminance(t *testing.T, colour string) float64 {
	t.Helper()
	sum := 0.0
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		n, err := strconv.ParseUint(colour[1+2*i:3+2*i], 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		c := float64(n) / 255
		if c <= 0.04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+0.055)/1.055, 2.4)
		}
		sum += weight * c
	}
	return sum
}

// Text has a contrast of 4.5 to what it stands on, and what carries meaning without text 3 (WCAG 2.2, 1.4.3 and 1.4.11).
func TestContrast(t *testing.T) {
	colours := palette(t)
	cards := []string{"page", "card", "well-card", "changing-card", "wrong-card"}
	type pair struct {
		on, what string
		least    float64
	}
	var pairs []pair
	for _, on := range cards {
		pairs = append(pairs, pair{on, "ink", 7}, pair{on, "soft", 4.5})
	}
	for _, level := range []string{"well", "changing", "wrong"} {
		pairs = append(pairs, pair{level + "-card", level, 4.5})
	}
	for _, on := range []string{"page", "card"} {
		pairs = append(pairs, pair{on, "line", 4.5}, pair{on, "wrong", 4.5}, pair{on, "edge", 3}, pair{on, "branch", 3}, pair{on, "well", 3}, pair{on, "changing", 3})
	}
	pairs = append(pairs, pair{"line", "page", 4.5}, pair{"ink", "page", 7}) // a badge, and the chosen theme
	for _, p := range pairs {
		for i, theme := range []string{"light", "dark"} {
			if colours[p.on][i] == "" || colours[p.what][i] == "" {
				t.Fatalf("no colour %s or %s", p.on, p.what)
			}
			a, b := luminance(t, colours[p.on][i]), luminance(t, colours[p.what][i])
			if got := (max(a, b) + 0.05) / (min(a, b) + 0.05); got < p.least {
				t.Errorf("%s: %s on %s has %.2f, want %.1f", theme, p.what, p.on, got, p.least)
			}
		}
	}
}

// Headings go down one level at a time, tables have captions and their headings a scope, and what is drawn has a name.
func TestMarkup(t *testing.T) {
	level := 0
	for _, m := range regexp.MustCompile(`<h([1-6])`).FindAllStringSubmatch(indexHTML, -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		if n > level+1 {
			t.Errorf("a heading of level %d follows one of level %d", n, level)
		}
		level = n
	}
	if n := strings.Count(indexHTML, "<h1"); n != 1 {
		t.Errorf("%d headings of level 1", n)
	}
	for _, table := range strings.Split(indexHTML, "<table")[1:] {
		table, _, _ = strings.Cut(table, "</table>")
		if !strings.Contains(table, "<caption") {
			t.Errorf("a table has no caption: %.80s", table)
		}
		for _, th := range regexp.MustCompile(`<th[ >][^>]*>`).FindAllString(table, -1) {
			if !strings.Contains(th, `scope="`) {
				t.Errorf("%s has no scope", th)
			}
		}
	}
	for _, landmark := range []string{"<header>", "<main ", "<footer>", `lang="en"`, `aria-live="polite"`, `<legend`} {
		if !strings.Contains(indexHTML, landmark) {
			t.Errorf("no %s", landmark)
		}
	}
	for i, svg := range regexp.MustCompile(`<svg[^>]*>`).FindAllString(indexHTML, -1) {
		if !strings.Contains(svg, "aria-hidden") && !strings.Contains(svg, "aria-labelledby") {
			t.Errorf("drawing %d has no name: %s", i, svg)
		}
	}
	if strings.Contains(indexHTML, "tabindex=\"1") {
		t.Error("an order of its own for the Tab key")
	}
}
