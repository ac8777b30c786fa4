package helm

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write the chart's README and the schema of its value config anew")

// value is one key of values.yaml.
type value struct {
	path    string
	initial string // its default, as JSON
	help    string
	leaf    bool
}

// chartValues reads values.yaml: every key must have a comment.
func chartValues(t *testing.T) []value {
	t.Helper()
	text, err := os.ReadFile("walbaton/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	var values []value
	var walk func(prefix string, n *yaml.Node)
	walk = func(prefix string, n *yaml.Node) {
		for i := 0; i < len(n.Content); i += 2 {
			key, v := n.Content[i], n.Content[i+1]
			// The comment of the file, or of what follows, stands before an empty line.
			comment := key.HeadComment[strings.LastIndex(key.HeadComment, "\n\n")+1:]
			help := strings.TrimSpace(strings.ReplaceAll(strings.TrimSpace(comment), "\n", " "))
			help = strings.TrimSpace(strings.TrimPrefix(strings.ReplaceAll(help, " # ", " "), "#"))
			if help == "" {
				t.Errorf("values.yaml:%d: %s%s has no comment above it", key.Line, prefix, key.Value)
			}
			section := v.Kind == yaml.MappingNode && v.Style != yaml.FlowStyle && len(v.Content) > 0 && v.Content[0].HeadComment != ""
			item := value{path: prefix + key.Value, help: help, leaf: !section}
			if item.leaf {
				var plain any
				if err := v.Decode(&plain); err != nil {
					t.Fatal(err)
				}
				var b bytes.Buffer
				e := json.NewEncoder(&b)
				e.SetEscapeHTML(false)
				if err := e.Encode(plain); err != nil {
					t.Fatal(err)
				}
				item.initial = strings.TrimSpace(b.String())
			}
			values = append(values, item)
			if section {
				walk(item.path+".", v)
			}
		}
	}
	walk("", doc.Content[0])
	return values
}

// The chart's README is made of values.yaml.
func TestChartReadme(t *testing.T) {
	var b strings.Builder
	b.WriteString("# The chart walbaton\n\n<!-- Written by `go test ./helm -update` from values.yaml. -->\n\n" +
		"[docs/install-kubernetes.md](../../docs/install-kubernetes.md) is where to begin: ten minutes for each of the four ways to use this chart.\n" +
		"This page has all its values. `helm install` refuses what is none of them.\n")
	table := false
	for _, v := range chartValues(t) {
		if !strings.Contains(v.path, ".") {
			fmt.Fprintf(&b, "\n## %s\n\n%s\n", v.path, v.help)
			table = false
			if v.leaf {
				fmt.Fprintf(&b, "\nDefault: `%s`\n", v.initial)
			}
			continue
		}
		if !table {
			b.WriteString("\n| key | default | meaning |\n| --- | --- | --- |\n")
			table = true
		}
		initial := ""
		if v.leaf {
			initial = "`" + v.initial + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", v.path, initial, strings.ReplaceAll(v.help, "|", `\|`))
	}
	upToDate(t, "walbaton/README.md", b.String())
}

// upToDate compares a file with what it should hold, or writes it.
func upToDate(t *testing.T, path, want string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is out of date: go test ./helm -update", path)
	}
}

// schema is a JSON schema as far as the tests look into it.
type schema = map[string]any

func readSchema(t *testing.T) schema {
	t.Helper()
	text, err := os.ReadFile("walbaton/values.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var s schema
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// values.schema.json knows the keys of values.yaml and no others. (Helm itself wants global, for charts that depend on this one.)
func TestSchemaHasEveryValue(t *testing.T) {
	var documented, known []string
	for _, v := range chartValues(t) {
		documented = append(documented, v.path)
	}
	open := map[string]bool{}
	for _, v := range chartValues(t) {
		open[v.path] = v.leaf
	}
	var walk func(prefix string, s schema)
	walk = func(prefix string, s schema) {
		if s["additionalProperties"] != false && prefix != "config." {
			t.Errorf("%s takes any key", strings.TrimSuffix(prefix, "."))
		}
		properties, _ := s["properties"].(schema)
		for name, p := range properties {
			path := prefix + name
			known = append(known, path)
			if !open[path] && path != "global" {
				walk(path+".", p.(schema))
			}
		}
	}
	walk("", readSchema(t))
	known = slices.DeleteFunc(known, func(p string) bool { return p == "global" })
	slices.Sort(documented)
	slices.Sort(known)
	if !slices.Equal(documented, known) {
		t.Errorf("values.yaml has\n%q, the schema\n%q", documented, known)
	}
}

// The chart's value config takes the settings of docs/configuration.md, so that a typing error is found before anything is installed.
func TestSchemaHasEverySetting(t *testing.T) {
	page, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	config := schema{"type": "object", "additionalProperties": false, "properties": schema{}}
	put := func(key string) {
		at := config["properties"].(schema)
		parts := strings.Split(key, ".")
		for _, p := range parts[:len(parts)-1] {
			if at[p] == nil || at[p].(schema)["properties"] == nil {
				at[p] = schema{"type": "object", "additionalProperties": false, "properties": schema{}}
			}
			at = at[p].(schema)["properties"].(schema)
		}
		last := parts[len(parts)-1]
		if at[last] == nil {
			at[last] = schema{"type": []any{"string", "number", "boolean", "array"}}
		}
	}
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 5 || !strings.HasPrefix(strings.TrimSpace(cells[0]), "`") {
			continue
		}
		for key := range strings.SplitSeq(cells[0], ",") {
			put(strings.Trim(strings.TrimSpace(key), "`"))
		}
	}
	properties := config["properties"].(schema)
	for _, ours := range []string{"name", "listen", "patroni_config", "socket"} { // what the chart sets itself
		delete(properties, ours)
	}
	archive := properties["archive"].(schema)["properties"].(schema)
	element := schema{"type": "object", "additionalProperties": false, "required": []any{"name", "url"}, "properties": schema{
		"name": schema{"type": "string", "minLength": 1.0}, "required": schema{"type": "boolean"},
	}}
	for name, p := range archive {
		if name != "codec" {
			element["properties"].(schema)[name] = p
		}
	}
	properties["archives"] = schema{"type": "array", "minItems": 1.0, "items": element}
	delete(archive, "url") // archive.url of the chart
	retention := properties["retention"].(schema)
	retention["type"] = []any{"object", "string"} // one word is short for it

	whole := readSchema(t)
	whole["properties"].(schema)["config"] = config
	text, err := json.MarshalIndent(whole, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	upToDate(t, "walbaton/values.schema.json", string(text)+"\n")
}
