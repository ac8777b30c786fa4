package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// setting is one key of the configuration.
type setting struct {
	key    string // in walbaton.yml, a dot for each level
	flag   string // "" makes it of the key
	value  string // the default, as one would write it
	help   string // of the flag, and on docs/configuration.md
	secret bool   // no flag, since ps shows flags; instead the key with _file names a file that holds it
	list   bool
	path   bool                                   // of files: relative ones in walbaton.yml start there
	words  []string                               // all that it may be, where these are a few
	set    func(c *Config, values []string) error // exactly one value unless it is a list
}

func (s setting) flagName() string {
	if s.flag != "" {
		return s.flag
	}
	return strings.NewReplacer(".", "-", "_", "-").Replace(s.key)
}

func (s setting) envName() string {
	return "WALBATON_" + strings.ToUpper(strings.ReplaceAll(s.flagName(), "-", "_"))
}

// split makes values of a flag or an environment variable.
func (s setting) split(v string) []string {
	if !s.list {
		return []string{v}
	}
	var values []string
	for _, p := range strings.Split(v, ",") {
		if p = strings.TrimSpace(p); p != "" {
			values = append(values, p)
		}
	}
	return values
}

func text(field func(*Config) *string) func(*Config, []string) error {
	return func(c *Config, v []string) error { *field(c) = v[0]; return nil }
}

// among makes s one of a few words; "" among them is leaving it out.
func (s setting) among(field func(*Config) *string, words ...string) setting {
	s.words = slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w == "" })
	known := s.words
	s.set = func(c *Config, v []string) error {
		if !slices.Contains(words, v[0]) {
			if len(known) == 1 {
				return fmt.Errorf("%q is not known: there is %s, and leaving it out", v[0], known[0])
			}
			return fmt.Errorf("%q is none of %s", v[0], strings.Join(known, ", "))
		}
		*field(c) = v[0]
		return nil
	}
	return s
}

func duration(field func(*Config) *time.Duration) func(*Config, []string) error {
	return func(c *Config, v []string) error {
		d, err := time.ParseDuration(v[0])
		if err != nil || d <= 0 {
			return fmt.Errorf("%q is not a time such as 15s, 2m or 1h30m", v[0])
		}
		*field(c) = d
		return nil
	}
}

func count(field func(*Config) *int) func(*Config, []string) error {
	return func(c *Config, v []string) error {
		n, err := strconv.Atoi(v[0])
		if err != nil || n < 1 || n > 1000 {
			return fmt.Errorf("%q is not a number from 1 to 1000", v[0])
		}
		*field(c) = n
		return nil
	}
}

// span takes days and weeks too.
func span(field func(*Config) *time.Duration) func(*Config, []string) error {
	return func(c *Config, v []string) (err error) {
		*field(c), err = parseSpan(v[0])
		return err
	}
}

// parseSpan reads 14d, 2w, and what Go reads, such as 36h.
func parseSpan(s string) (time.Duration, error) {
	wrong := fmt.Errorf("%q is not a time such as 14d, 2w or 36h", s)
	if d, err := time.ParseDuration(s); err == nil && d > 0 {
		return d, nil
	}
	unit := map[byte]time.Duration{'d': 24 * time.Hour, 'w': 7 * 24 * time.Hour}
	if s == "" || unit[s[len(s)-1]] == 0 {
		return 0, wrong
	}
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 32)
	each := unit[s[len(s)-1]]
	if err != nil || n == 0 || n > uint64(math.MaxInt64/each) {
		return 0, wrong
	}
	return time.Duration(n) * each, nil
}

func yesNo(field func(*Config) *bool) func(*Config, []string) error {
	return func(c *Config, v []string) error {
		if v[0] != "true" && v[0] != "false" {
			return fmt.Errorf("%q is neither true nor false", v[0])
		}
		*field(c) = v[0] == "true"
		return nil
	}
}

// size takes PostgreSQL's units, where a kB has 1024 bytes (guc.c).
func size(field func(*Config) *int64) func(*Config, []string) error {
	return func(c *Config, v []string) error {
		digits := strings.TrimRight(v[0], "kMGTB ")
		n, err := strconv.ParseInt(digits, 10, 64)
		shift, ok := map[string]int{"": 0, "B": 0, "kB": 10, "MB": 20, "GB": 30, "TB": 40}[strings.TrimSpace(v[0][len(digits):])]
		if err != nil || !ok || n < 0 || n > math.MaxInt64>>shift {
			return fmt.Errorf("%q is not a size such as 64MB or 1GB", v[0])
		}
		*field(c) = n << shift
		return nil
	}
}

// reader sets what a file says. Errors name its lines.
type reader struct {
	path    string
	getenv  func(string) string
	all     []setting
	config  *Config
	element bool // of archives
}

// readFile reads walbaton.yml. A key that is unknown or comes twice is an error.
func readFile(c *Config, all []setting, path string, b []byte, getenv func(string) string) error {
	r := reader{path: path, getenv: getenv, all: all, config: c}
	d := yaml.NewDecoder(bytes.NewReader(b))
	var doc, more yaml.Node
	if err := d.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil // empty, or nothing but comments
		}
		return configError(path, "%s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return configError(path, "it holds more than one YAML document")
	}
	return r.mapping("", doc.Content[0])
}

func (r *reader) fail(n *yaml.Node, format string, args ...any) error {
	return configError(fmt.Sprintf("%s:%d", r.path, n.Line), format, args...)
}

// mapping sets the keys below prefix, which is "" or ends with a dot.
func (r *reader) mapping(prefix string, n *yaml.Node) error {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Tag == "!!null" && prefix == "" {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		return r.fail(n, "%s must hold keys, not a value", r.name(prefix))
	}
	seen := map[string]bool{}
	for i := 0; i < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		if value.Kind == yaml.AliasNode {
			value = value.Alias
		}
		key := prefix + name.Value
		if seen[key] {
			return r.fail(name, "%s comes twice", key)
		}
		seen[key] = true
		if err := r.key(key, name, value); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) name(prefix string) string {
	if prefix == "" {
		return "the file"
	}
	return strings.TrimSuffix(prefix, ".")
}

func (r *reader) key(key string, name, value *yaml.Node) error {
	if key == archivesKey && !r.element {
		return r.archives(value)
	}
	if key == retentionKey && value.Kind == yaml.ScalarNode {
		key = retentionKey + ".mode" // one word says it
	}
	for _, s := range r.all {
		switch {
		case s.key == key:
			values, err := r.values(s, value)
			if err != nil {
				return err
			}
			for i, v := range values {
				if s.path && !filepath.IsAbs(v) {
					values[i] = filepath.Join(filepath.Dir(r.path), v)
				}
			}
			if err := s.set(r.config, values); err != nil {
				return r.fail(value, "%s: %w", key, err)
			}
			return nil
		case s.secret && s.key+"_file" == key:
			return r.secret(s, key, value)
		case strings.HasPrefix(s.key, key+"."):
			return r.mapping(key+".", value)
		}
	}
	err := r.fail(name, "unknown key %q", key)
	if near := r.nearest(key); near != "" {
		return withHint(err, "did you mean "+near+"?")
	}
	return withHint(err, "the keys are: "+strings.Join(r.keys(), ", "))
}

func (r *reader) keys() []string {
	var keys []string
	if !r.element {
		keys = append(keys, archivesKey)
	}
	for _, s := range r.all {
		keys = append(keys, s.key)
		if s.secret {
			keys = append(keys, s.key+"_file")
		}
	}
	return keys
}

// nearest is the known key that differs in at most two letters, or "".
func (r *reader) nearest(key string) string {
	best, distance := "", 3
	for _, k := range r.keys() {
		for _, k := range []string{k, strings.SplitN(k, ".", 2)[0]} {
			if d := editDistance(key, k); d < distance {
				best, distance = k, d
			}
		}
	}
	return best
}

// editDistance counts the letters to insert, delete or replace (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func (r *reader) values(s setting, n *yaml.Node) ([]string, error) {
	if n.Kind == yaml.SequenceNode && s.list {
		var values []string
		for _, e := range n.Content {
			v, err := r.scalar(s.key, e)
			if err != nil {
				return nil, err
			}
			values = append(values, v)
		}
		return values, nil
	}
	v, err := r.scalar(s.key, n)
	return []string{v}, err
}

func (r *reader) scalar(key string, n *yaml.Node) (string, error) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return "", r.fail(n, "%s must have one value", key)
	}
	v, err := expand(n.Value, r.getenv)
	if err != nil {
		return "", r.fail(n, "%s: %w", key, err)
	}
	return v, nil
}

// secret reads the file that a key with _file names. A relative path starts at walbaton.yml.
func (r *reader) secret(s setting, key string, n *yaml.Node) error {
	path, err := r.scalar(key, n)
	if err != nil {
		return err
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(r.path), path)
	}
	b, err := readSmall(path)
	if err != nil {
		return r.fail(n, "%s: %w", key, bare(err))
	}
	if err := s.set(r.config, []string{strings.TrimRight(string(b), "\r\n")}); err != nil {
		return r.fail(n, "%s: %w", key, err)
	}
	return nil
}

// expand puts environment variables in the place of ${NAME}. An unset or empty one is an error,
// since a password or a bucket that is silently empty is found late. $${ stands for ${ itself;
// any other $ is left as it is.
func expand(s string, getenv func(string) string) (string, error) {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(s, "${")
		if !found {
			b.WriteString(s)
			return b.String(), nil
		}
		if literal, ok := strings.CutSuffix(before, "$"); ok {
			b.WriteString(literal + "${")
			s = rest
			continue
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed || !isEnvName(name) {
			return "", errors.New("${ without a name and } after it: write $${ for a literal ${")
		}
		v := getenv(name)
		if v == "" {
			err := fmt.Errorf("${%s}: the environment variable %s is not set", name, name)
			return "", withHint(err, "set it for this program, or write $${"+name+"} for the text itself")
		}
		b.WriteString(before + v)
		s = after
	}
}

func isEnvName(s string) bool {
	for i, c := range []byte(s) {
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}
