package setup

import (
	"path"
	"slices"
	"strings"
)

// Client is how PostgreSQL calls walbaton-wal.
type Client struct {
	Path   string // of walbaton-wal, absolute
	Socket string // of the sidecar; "" is walbaton-wal's default
	Config string // walbaton's file, for a fetch where no sidecar runs; "" is the default
}

// Push is archive_command.
func (c Client) Push() string { return c.command("push", "", "%p") }

// Fetch is restore_command.
func (c Client) Fetch() string { return c.command("fetch", c.Config, "%f %p") }

func (c Client) command(verb, config, args string) string {
	s := quote(c.Path) + " " + verb
	if c.Socket != "" {
		s += " --socket " + quote(c.Socket)
	}
	if config != "" {
		s += " --config " + quote(config)
	}
	return s + " " + args
}

// quote writes a word so that it passes PostgreSQL, which replaces % and what follows it, and then a shell, or the shlex.split with
// which Patroni before 3.1 takes a command apart.
func quote(word string) string {
	word = strings.ReplaceAll(word, "%", "%%")
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_@%+=:,./-", r)
	}
	if word != "" && !strings.ContainsFunc(word, func(r rune) bool { return !plain(r) }) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// DefaultSocket is walbaton-wal's.
const DefaultSocket = "/run/walbaton/walbaton.sock"

// same says whether two commands do the same: blanks do not count, nor whether the default socket is named.
func same(a, b string) bool {
	x, _ := words(a)
	y, _ := words(b)
	return slices.Equal(normal(x), normal(y))
}

// normal writes a call of walbaton-wal in one way.
func normal(w []string) []string {
	if len(w) < 2 || path.Base(w[0]) != clientName {
		return w
	}
	var out []string
	for i := 0; i < len(w); i++ {
		name, value, joined := strings.Cut(w[i], "=")
		if name != "--socket" && name != "--config" {
			out = append(out, w[i])
			continue
		}
		if !joined && i+1 < len(w) {
			i++
			value = w[i]
		}
		if name != "--socket" || value != DefaultSocket {
			out = append(out, name, value)
		}
	}
	return out
}

const clientName = "walbaton-wal"

// calls says whether a command calls walbaton-wal with a verb, and nothing else.
func calls(command, verb string) bool {
	w, shell := words(command)
	return !shell && len(w) > 2 && path.Base(w[0]) == clientName && w[1] == verb
}

// archivesNothing says whether an archive_command throws WAL away, or does nothing at all.
func archivesNothing(command string) bool {
	w, _ := words(command)
	if len(w) == 0 || command == disabled {
		return true
	}
	switch path.Base(w[0]) {
	case "true", ":", "false":
		return true
	case "exit":
		return len(w) == 2
	}
	return false
}

// disabled is what PostgreSQL shows for archive_command while archive_mode is off.
const disabled = "(disabled)"

// needsShell says whether a command does not work for Patroni 2.1.5 to 3.0.x, which runs the archive_command of a former primary without
// a shell (patroni/postgresql/rewind.py).
func needsShell(command string) bool {
	_, shell := words(command)
	return shell
}

// words takes a command apart like shlex.split, and says whether it has, outside of quotes, what only a shell understands.
func words(command string) (all []string, shell bool) {
	var word strings.Builder
	begun := false
	end := func() {
		if begun {
			all = append(all, word.String())
			word.Reset()
			begun = false
		}
	}
	var open rune // the quote that is open
	escaped := false
	for _, r := range command {
		switch {
		case escaped:
			if open == '"' && r != '"' && r != '\\' {
				word.WriteRune('\\')
			}
			word.WriteRune(r)
			escaped = false
		case r == '\\' && open != '\'':
			escaped, begun = true, true
		case open != 0 && r == open:
			open = 0
		case open != 0:
			shell = shell || open == '"' && (r == '$' || r == '`')
			word.WriteRune(r)
		case r == '\'' || r == '"':
			open, begun = r, true
		case r == ' ' || r == '\t' || r == '\n':
			end()
		default:
			shell = shell || strings.ContainsRune("&|;<>()$`*?~#!", r)
			word.WriteRune(r)
			begun = true
		}
	}
	end()
	return all, shell
}
