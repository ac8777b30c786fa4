package setup

import (
	"os/exec"
	"reflect"
	"strings"
	"testing"
)

func TestClient(t *testing.T) {
	for _, tc := range []struct {
		c           Client
		push, fetch string
	}{
		{Client{Path: "/usr/bin/walbaton-wal"}, "/usr/bin/walbaton-wal push %p", "/usr/bin/walbaton-wal fetch %f %p"},
		{Client{Path: "/usr/bin/walbaton-wal", Socket: "/run/shop/s", Config: "/etc/shop.yml"}, "/usr/bin/walbaton-wal push --socket /run/shop/s %p",
			"/usr/bin/walbaton-wal fetch --socket /run/shop/s --config /etc/shop.yml %f %p"},
		{Client{Path: "/opt/my tools/it's 100%/walbaton-wal"}, `'/opt/my tools/it'\''s 100%%/walbaton-wal' push %p`, `'/opt/my tools/it'\''s 100%%/walbaton-wal' fetch %f %p`},
	} {
		if got := tc.c.Push(); got != tc.push {
			t.Errorf("got %s, want %s", got, tc.push)
		}
		if got := tc.c.Fetch(); got != tc.fetch {
			t.Errorf("got %s, want %s", got, tc.fetch)
		}
	}
}

// What PostgreSQL makes of a quoted word, a shell takes for that word, and so does shlex.split, as which words works.
func TestQuote(t *testing.T) {
	for _, word := range []string{"plain", "", "two words", "it's", `a"b`, `back\slash`, "$HOME", "50%", "%p", "ä", "a&b", "~x"} {
		command := strings.ReplaceAll(quote(word), "%%", "%")
		out, err := exec.Command("sh", "-c", "printf %s "+command).Output()
		if err != nil || string(out) != word {
			t.Errorf("%q: a shell makes %q of %s (%v)", word, out, command, err)
		}
		if got, shell := words(command); !reflect.DeepEqual(got, []string{word}) || shell {
			t.Errorf("%q: got %q of %s (a shell is needed: %v)", word, got, command, shell)
		}
	}
}

func TestCommands(t *testing.T) {
	for command, want := range map[string]struct{ push, nothing, shell bool }{
		"walbaton-wal push %p":                        {push: true},
		"/usr/bin/walbaton-wal push --socket /s %p":   {push: true},
		"walbaton-wal push %p && pgbackrest push %p":  {shell: true},
		`sh -c 'walbaton-wal push "$0" && x "$0"' %p`: {},
		"walbaton-wal fetch %f %p":                    {},
		"walbaton-wal push":                           {},
		"cp %p /mnt/%f":                               {},
		"test ! -f /mnt/%f && cp %p /mnt/%f":          {shell: true},
		"gzip < %p > /mnt/%f":                         {shell: true},
		`echo "$HOME" %p`:                             {shell: true},
		`echo '$HOME' %p`:                             {},
		"":                                            {nothing: true},
		"/bin/true":                                   {nothing: true},
		"(disabled)":                                  {nothing: true, shell: true},
		":":                                           {nothing: true},
		"exit 0":                                      {nothing: true},
	} {
		if got := calls(command, "push"); got != want.push {
			t.Errorf("%q: calls walbaton-wal push: %v", command, got)
		}
		if got := archivesNothing(command); got != want.nothing {
			t.Errorf("%q: archives nothing: %v", command, got)
		}
		if got := needsShell(command); got != want.shell {
			t.Errorf("%q: needs a shell: %v", command, got)
		}
	}
}

func TestSame(t *testing.T) {
	const plain = "/usr/bin/walbaton-wal push %p"
	for other, want := range map[string]bool{
		plain:                               true,
		"/usr/bin/walbaton-wal   push   %p": true,
		"'/usr/bin/walbaton-wal' push %p":   true,
		"/usr/bin/walbaton-wal push --socket /run/walbaton/walbaton.sock %p": true,
		"/usr/bin/walbaton-wal push --socket=/run/walbaton/walbaton.sock %p": true,
		"/usr/bin/walbaton-wal push --socket /run/other %p":                  false,
		"/opt/walbaton-wal push %p":                                          false,
		"":                                                                   false,
	} {
		if got := same(plain, other); got != want {
			t.Errorf("%q: got %v, want %v", other, got, want)
		}
	}
	if !same("x --socket=/s", "x --socket=/s") || same("x --socket=/s", "x --socket /s") {
		t.Error("what other programs take is none of our business")
	}
}
