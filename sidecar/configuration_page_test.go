package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"text/template"
)

// docs/configuration.md is made of docs/configuration.md.tmpl, which has the words, and of settings(), which has names, defaults and what each setting
// means. After a change: go test ./sidecar -run TestConfigurationPage -update
func TestConfigurationPage(t *testing.T) {
	const name, howto = "docs/configuration.md", "go test ./sidecar -run TestConfigurationPage -update"
	text, listed := configurationPage(t)
	for _, s := range settings() {
		if n := strings.Count(strings.Join(listed, "\n")+"\n", s.key+"\n"); n == 0 {
			t.Errorf(`%s.tmpl has no line {{row %q}} |: add it where it belongs, behind it what is to be known besides its help, and run %s`, name, s.key, howto)
		}
		if s.help == "" {
			t.Errorf("%s has no help", s.key)
		}
	}
	if sorted := slices.Sorted(slices.Values(listed)); len(slices.Compact(sorted)) != len(listed) {
		t.Errorf("%s.tmpl has a setting twice: %q", name, sorted)
	}
	if *update {
		if err := os.WriteFile("../"+name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := page(t, name); got != text {
		t.Errorf("%s is out of date. Change %s.tmpl or the help of the setting, never the page, and run %s\n%s", name, name, howto, firstDifference(got, text))
	}
}

// configurationPage executes the template, and gives the keys that it has rows of.
func configurationPage(t *testing.T) (text string, listed []string) {
	t.Helper()
	row := func(key string) (string, error) {
		i := slices.IndexFunc(settings(), func(s setting) bool { return s.key == key })
		if i < 0 {
			return "", fmt.Errorf("there is no setting %q", key)
		}
		listed = append(listed, key)
		return settings()[i].row(), nil
	}
	tmpl, err := template.New("configuration.md").Funcs(template.FuncMap{"row": row}).Parse(page(t, "docs/configuration.md.tmpl"))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := tmpl.Execute(&b, nil); err != nil {
		t.Fatal(err)
	}
	return b.String(), listed
}

// row is the setting's row of the page, but for its end, where the template may add something.
func (s setting) row() string {
	code := func(s string) string {
		if s == "" {
			return ""
		}
		return "`" + s + "`"
	}
	key, flag := code(s.key), code("--"+s.flagName())
	if s.secret {
		key, flag = key+", "+code(s.key+"_file"), ""
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %s", key, flag, code(s.envName()), code(s.value), strings.ReplaceAll(s.help, "<", "&lt;"))
}

// firstDifference shows the first line in which two texts differ.
func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		line := func(lines []string) string {
			if i < len(lines) {
				return lines[i]
			}
			return "(the page ends)"
		}
		if line(g) != line(w) {
			return fmt.Sprintf("line %d is\n%s\nwant\n%s", i+1, line(g), line(w))
		}
	}
	return ""
}
