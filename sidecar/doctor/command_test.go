package doctor

import (
	"reflect"
	"testing"
)

func TestParseCommand(t *testing.T) {
	for text, want := range map[string]Command{
		"":                                                            {},
		"/usr/local/bin/walbaton-wal push %p":                         {Program: "/usr/local/bin/walbaton-wal", Verb: "push", Words: []string{"%p"}},
		"walbaton-wal push --socket /x %p":                            {Program: "walbaton-wal", Verb: "push", Words: []string{"%p"}, Socket: "/x"},
		"walbaton-wal push --socket=/x -- %p":                         {Program: "walbaton-wal", Verb: "push", Words: []string{"%p"}, Socket: "/x"},
		`"/opt/my dir/walbaton-wal" push '%p'`:                        {Program: "/opt/my dir/walbaton-wal", Verb: "push", Words: []string{"%p"}},
		`/opt/my\ dir/walbaton-wal push "%p"`:                         {Program: "/opt/my dir/walbaton-wal", Verb: "push", Words: []string{"%p"}},
		"WALBATON_SOCKET=/y A=b walbaton-wal fetch %f %p":             {Program: "walbaton-wal", Verb: "fetch", Words: []string{"%f", "%p"}, Socket: "/y"},
		"walbaton fetch --config /c --archive u %f %p":                {Program: "walbaton", Verb: "fetch", Words: []string{"%f", "%p"}},
		"envdir /e walbaton-wal push %p":                              {Program: "walbaton-wal", Verb: "push", Words: []string{"%p"}, Before: []string{"envdir", "/e"}},
		"cp %p /a/%f && walbaton-wal push %p":                         {Program: "walbaton-wal", Verb: "push", Words: []string{"%p"}, Before: []string{"cp", "%p", "/a/%f"}, Joined: []string{"&&"}},
		"walbaton-wal push %p||true;false | cat &":                    {Program: "walbaton-wal", Verb: "push", Words: []string{"%p"}, Joined: []string{"||", ";", "|", "&"}},
		"sh -c 'walbaton-wal push %p'":                                {Program: "walbaton-wal", Verb: "push", Words: []string{"%p"}},
		`sh -c 'old push "$0" && /usr/bin/walbaton-wal push "$0"' %p`: {Program: "/usr/bin/walbaton-wal", Verb: "push", Words: []string{"%p"}, Before: []string{"old", "push", "%p"}, Joined: []string{"&&"}},
		`sh -c 'old "$1"; walbaton-wal push "$0"' %p %f`:              {Program: "walbaton-wal", Verb: "push", Words: []string{"%p"}, Before: []string{"old", "%f"}, Joined: []string{";"}},
		"sh -c 'old %p'":                                              {Before: []string{"old", "%p"}},
		"walbaton-wal push '%p":                                       {Program: "walbaton-wal", Verb: "push", Odd: "a quote in it is not closed"},
		"/usr/bin/pgbackrest --stanza=shop archive-push %p":           {Before: []string{"/usr/bin/pgbackrest", "--stanza=shop", "archive-push", "%p"}},
	} {
		want.Text = text
		if got := ParseCommand(text); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got\n%+v, want\n%+v", text, got, want)
		}
	}
}

// Nobody sees more than the program of a command that is not walbaton's, and the rest is judged as before.
func TestShown(t *testing.T) {
	for text, want := range map[string]string{
		"": "", " walbaton-wal push %p ": "walbaton-wal push %p", "/bin/true": "/bin/true",
		"KEY=secret s3put %p":                                "s3put ...",
		"curl -u me:secret %p":                               "curl ...",
		"walbaton-wal push %p && x secret":                   "walbaton-wal push %p && x ...",
		"x secret more; walbaton-wal push %p":                "x ... ; walbaton-wal push %p",
		"KEY=secret WALBATON_SOCKET=/x walbaton-wal push %p": "WALBATON_SOCKET=/x walbaton-wal push %p",
		"timeout 60 walbaton-wal fetch %f %p":                "timeout ... walbaton-wal fetch %f %p",
		`"/my dir/walbaton-wal" push %p`:                     `"/my dir/walbaton-wal" push %p`,
		"'":                                                  "...",
		`sh -c 'x secret "$0" && walbaton-wal push "$0"' %p`: "x ... && walbaton-wal push %p",
	} {
		got := Shown(text)
		if got != want {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
		for verb, words := range map[string][]string{"push": {"%p"}, "fetch": {"%f", "%p"}} {
			wrong, loose := ParseCommand(text).wrong(verb, words...)
			wrongShown, looseShown := ParseCommand(got).wrong(verb, words...)
			if wrong != wrongShown && text != "'" || loose != looseShown {
				t.Errorf("%s: %q, %q; as shown %q, %q", text, wrong, loose, wrongShown, looseShown)
			}
		}
	}
}
