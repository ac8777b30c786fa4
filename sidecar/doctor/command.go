package doctor

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Command is archive_command or restore_command, taken apart as a shell would.
type Command struct {
	Text    string
	Program string   // the first word that names walbaton-wal, or walbaton; "" there is none
	Verb    string   // push, fetch
	Words   []string // after the verb's flags
	Socket  string   // "" the default
	Before  []string // words before Program, but for assignments of variables
	Joined  []string // operators of the shell in it: && || ; | &
	Odd     string   // why it could not be taken apart
}

// DefaultSocket is the one that walbaton-wal calls when nothing else is said.
const DefaultSocket = "/run/walbaton/walbaton.sock"

// ParseCommand takes a command apart. It knows quotes, backslashes and the operators of the shell, and nothing else.
func ParseCommand(text string) Command {
	c := Command{Text: strings.TrimSpace(text)}
	words, odd := commandWords(c.Text)
	c.Odd = odd
	for i := 0; i < len(words); i++ {
		w := words[i]
		switch base := path.Base(w.text); {
		case w.operator:
			c.Joined = append(c.Joined, w.text)
		case c.Program == "" && (base == "walbaton-wal" || base == "walbaton"):
			c.Program = w.text
			i += c.arguments(words[i+1:])
		case c.Program == "" && assignment(w.text):
			if v, is := strings.CutPrefix(w.text, "WALBATON_SOCKET="); is {
				c.Socket = v
			}
		case c.Program == "":
			c.Before = append(c.Before, w.text)
		}
	}
	return c
}

// arguments reads what belongs to the program, and says how many words that is.
func (c *Command) arguments(words []word) (n int) {
	flags := true
	for n < len(words) && !words[n].operator {
		w := words[n].text
		n++
		switch {
		case c.Verb == "":
			c.Verb = w
		case flags && w == "--":
			flags = false
		case flags && strings.HasPrefix(w, "--") && len(c.Words) == 0:
			name, value, given := strings.Cut(w, "=")
			if !given && n < len(words) && !words[n].operator {
				value = words[n].text
				n++
			}
			if name == "--socket" {
				c.Socket = value
			}
		default:
			c.Words = append(c.Words, w)
		}
	}
	return n
}

// assignment says whether a word is NAME=value.
func assignment(w string) bool {
	name, _, is := strings.Cut(w, "=")
	return is && name != "" && !strings.ContainsAny(name, "/ -.")
}

// wrong says what is wrong with a command that is to do verb with these words; "" nothing. loose is about what works and can mislead.
func (c Command) wrong(verb string, want ...string) (wrong, loose string) {
	switch {
	case c.Text == "":
		return "it is empty", ""
	case c.Odd != "":
		return c.Odd, ""
	case c.Program == "" || verb == "push" && path.Base(c.Program) != "walbaton-wal":
		return "it does not call walbaton-wal", ""
	case c.Verb != verb:
		return fmt.Sprintf("it calls %s %s, not %s", path.Base(c.Program), c.Verb, verb), ""
	case strings.Join(c.Words, " ") != strings.Join(want, " "):
		return fmt.Sprintf("it gives %q to %s, not %s", strings.Join(c.Words, " "), verb, strings.Join(want, " ")), ""
	}
	for _, op := range c.Joined {
		switch {
		case op == "&&" && verb == "push":
			loose = "another command is joined to it by &&, as while two archivers run side by side"
		case verb == "push":
			return fmt.Sprintf("with %q in it, it can answer 0 where walbaton-wal does not", op), ""
		default:
			return fmt.Sprintf("with %q in it, it can turn walbaton-wal's \"cannot say\" into \"not there\"", op), ""
		}
	}
	if loose == "" && len(c.Before) > 0 {
		loose = fmt.Sprintf("it is called through %s, which must pass its exit code on, and 200 too", path.Base(c.Before[0]))
	}
	return "", loose
}

// socketOr gives the socket, or the default one.
func (c Command) socketOr() string {
	if c.Socket == "" {
		return DefaultSocket
	}
	return c.Socket
}

// Shown is a command as others may see it: what belongs to walbaton as it is, of other programs the name alone, for a command can have
// passwords in it. It is judged as the command itself is.
func Shown(command string) string {
	words, odd := commandWords(command)
	if odd != "" {
		return "..."
	}
	var out []string
	for len(words) > 0 {
		if words[0].operator {
			out = append(out, words[0].text)
			words = words[1:]
			continue
		}
		n := 0
		for n < len(words) && !words[n].operator {
			n++
		}
		out = append(out, shownOne(words[:n])...)
		words = words[n:]
	}
	return strings.Join(out, " ")
}

// shownOne is Shown of one command without operators.
func shownOne(words []word) (out []string) {
	for i, w := range words {
		switch base := path.Base(w.text); {
		case base == "walbaton-wal" || base == "walbaton":
			for _, w := range words[i:] {
				out = append(out, quoteWord(w.text))
			}
			return out
		case assignment(w.text):
			if strings.HasPrefix(w.text, "WALBATON_SOCKET=") {
				out = append(out, quoteWord(w.text))
			}
		case len(out) == 0 || assignment(out[len(out)-1]):
			out = append(out, quoteWord(w.text))
		case out[len(out)-1] != "...":
			out = append(out, "...")
		}
	}
	return out
}

// quoteWord quotes a word that a shell would split.
func quoteWord(s string) string {
	if s != "" && !strings.ContainsAny(s, " \t\n'\"\\;&|") {
		return s
	}
	return `"` + s + `"`
}

// word is a word of a shell's command line, or an operator between commands.
type word struct {
	text     string
	operator bool
}

// commandWords are those of a command, and of `sh -c 'a "$0" && b "$0"' %p` those of a and b: Patroni before 3.1 runs a command without a shell,
// so one that needs a shell is written like that (docs/coming-from.md).
func commandWords(s string) ([]word, string) {
	words, odd := shellWords(s)
	if odd != "" || len(words) < 3 || path.Base(words[0].text) != "sh" || words[1].text != "-c" || slices.ContainsFunc(words, func(w word) bool { return w.operator }) {
		return words, odd
	}
	script := words[2].text
	for i, w := range words[3:] {
		script = strings.ReplaceAll(script, fmt.Sprint("$", i), w.text)
	}
	return shellWords(script)
}

// shellWords splits a command line.
func shellWords(s string) (out []word, odd string) {
	var b strings.Builder
	within := false // a word
	end := func() {
		if within {
			out = append(out, word{text: b.String()})
		}
		b.Reset()
		within = false
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case ' ', '\t', '\n':
			end()
		case '\'', '"':
			stop := strings.IndexByte(s[i+1:], c)
			if stop < 0 {
				return out, "a quote in it is not closed"
			}
			b.WriteString(s[i+1 : i+1+stop])
			within = true
			i += stop + 1
		case '\\':
			if i++; i < len(s) {
				b.WriteByte(s[i])
				within = true
			}
		case '&', '|', ';':
			end()
			op := string(c)
			if c != ';' && i+1 < len(s) && s[i+1] == c {
				op += op
				i++
			}
			out = append(out, word{op, true})
		default:
			b.WriteByte(c)
			within = true
		}
	}
	end()
	return out, ""
}
