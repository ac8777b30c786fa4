//go:build servers

package packaging

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// packageFile builds the Debian package and gives its path and the folder that it was unpacked into.
func packageFile(t *testing.T) (deb, root string) {
	t.Helper()
	dir := scratchDir(t)
	deb = build(t, dir)
	root = filepath.Join(dir, "root")
	run(t, "dpkg-deb", "-x", deb, root)
	return deb, root
}

func build(t *testing.T, dir string) string {
	t.Helper()
	run(t, "../.ci/package", dir)
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		t.Fatalf("%v, %v", debs, err)
	}
	return debs[0]
}

func TestPackage(t *testing.T) {
	deb, root := packageFile(t)
	version := strings.TrimSpace(run(t, "../.ci/version"))

	t.Run("reproducible", func(t *testing.T) {
		again := build(t, t.TempDir())
		a, err := os.ReadFile(deb)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(again)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Error("two builds of the same differ")
		}
	})
	// In a container, so that dpkg runs its scripts on a system of its own.
	t.Run("install and remove", func(t *testing.T) {
		run(t, "../.ci/image", "base")
		script := `set -e
dpkg -i /walbaton.deb >/dev/null
walbaton version
walbaton-wal version
stat -c '%a %U %n' /usr/bin/walbaton /usr/bin/walbaton-wal /etc/walbaton/walbaton.yml /usr/lib/systemd/system/walbaton.service
find /etc/systemd -name 'walbaton*'
dpkg-query -W -f '${Conffiles}\n' walbaton | sed 's/^ *\([^ ]*\).*/\1/'
dpkg -V walbaton
echo changed >>/etc/walbaton/walbaton.yml
dpkg -i /walbaton.deb >/dev/null
tail -n 1 /etc/walbaton/walbaton.yml
dpkg -r walbaton >/dev/null
ls /etc/walbaton
dpkg -P walbaton >/dev/null
find / -xdev -name '*walbaton*' -not -path '/proc/*' -not -name walbaton.deb -not -path '/var/log/*'`
		want := "walbaton " + version + "\nwalbaton-wal " + version + `
755 root /usr/bin/walbaton
755 root /usr/bin/walbaton-wal
644 root /etc/walbaton/walbaton.yml
644 root /usr/lib/systemd/system/walbaton.service
/etc/walbaton/walbaton.yml
changed
walbaton.yml
`
		got := run(t, "podman", "--runtime", "runc", "run", "--rm", "--ulimit", "nofile=10000:10000", "--ulimit", "nproc=5000:5000", "--network", "none",
			"-v", deb+":/walbaton.deb:ro", "localhost/debian:bookworm", "sh", "-c", script)
		if got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
	t.Run("manual", func(t *testing.T) {
		manualPages(t, filepath.Join(root, "usr/share/man"), filepath.Join(root, "usr/bin/walbaton"))
	})
	t.Run("manual of the client", func(t *testing.T) { clientPage(t, root) })
	t.Run("completion", func(t *testing.T) { completions(t, root) })
}

// manualPages looks at every page as man does, and for every verb.
func manualPages(t *testing.T, dir, walbaton string) {
	pages, err := filepath.Glob(filepath.Join(dir, "man*", "*.gz"))
	if err != nil || len(pages) < 10 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	for _, page := range pages {
		if out, err := try("mandoc", "-T", "lint", "-W", "warning", page); err != nil || out != "" {
			t.Errorf("%v\n%s", err, out)
		}
		for _, part := range []string{"NAME\n", "SEE ALSO\n"} {
			if text := rendered(t, page); !strings.Contains(text, part) {
				t.Errorf("%s has no %q:\n%s", page, part, text)
			}
		}
	}
	out, err := exec.Command(walbaton, "--help").CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	_, verbs, _ := strings.Cut(string(out), "Available Commands:\n")
	verbs, _, _ = strings.Cut(verbs, "\n\n")
	for line := range strings.Lines(verbs) {
		verb := strings.Fields(line)[0]
		if verb == "help" {
			continue
		}
		page := rendered(t, filepath.Join(dir, "man1", "walbaton-"+verb+".1.gz"))
		help := run(t, walbaton, verb, "--help")
		for _, word := range strings.Fields(help) {
			if strings.HasPrefix(word, "--") && strings.Trim(word, "-") != "help" && !strings.Contains(page, strings.TrimRight(word, ".,:;)'\"`")) {
				t.Errorf("the page of %s lacks %s", verb, word)
			}
		}
	}
}

// clientPage compares the page of the small client, which is written by hand, with what the program says of itself.
func clientPage(t *testing.T, root string) {
	page := rendered(t, filepath.Join(root, "usr/share/man/man1/walbaton-wal.1.gz"))
	help := run(t, filepath.Join(root, "usr/bin/walbaton-wal"), "help")
	words := regexp.MustCompile(`(?m)^  walbaton-wal (\w+)|(--[a-z-]+)|(WALBATON_\w+)`).FindAllStringSubmatch(help, -1)
	if len(words) < 8 {
		t.Fatalf("the help has %d verbs and flags:\n%s", len(words), help)
	}
	for _, m := range words {
		if word := m[1] + m[2] + m[3]; !strings.Contains(page, word) {
			t.Errorf("the page of walbaton-wal lacks %s", word)
		}
	}
}

// rendered is a page as one reads it, without what makes letters bold and underlined.
func rendered(t *testing.T, page string) string {
	t.Helper()
	return regexp.MustCompile(".\b").ReplaceAllString(run(t, "mandoc", "-T", "utf8", page), "")
}

// completions asks each shell, with the file that the package brings, what may follow.
func completions(t *testing.T, root string) {
	share, path := filepath.Join(root, "usr/share"), "PATH="+filepath.Join(root, "usr/bin")+":"+os.Getenv("PATH")
	shell := func(script string, args ...string) []string {
		cmd := exec.Command(args[0], append(args[1:], script)...)
		cmd.Env = append(os.Environ(), path, "HOME="+t.TempDir(), "TERM=dumb", "WALBATON_CONFIG=/dev/null")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Errorf("%s: %v\n%s", args[0], err, stderr.String())
		}
		words := strings.Fields(string(out))
		slices.Sort(words)
		return words
	}
	for line, want := range map[string][]string{
		"walbaton sidecar --policy ":   {"primary", "replica"},
		"walbaton sidecar --dcs-kind ": {"rest", "static"},
		"walbaton completion ":         {"bash", "fish", "zsh"},
		"walbaton ver":                 {"verify", "version"},
		"walbaton list --arch":         {"--archive"},
		"walbaton expire --keep ":      {},
	} {
		words := strings.Split(line, " ")
		quoted := "'" + strings.Join(words, "' '") + "'"
		bash := "source /usr/share/bash-completion/bash_completion; source " + filepath.Join(share, "bash-completion/completions/walbaton") + "\nCOMP_LINE='" + line + "' COMP_POINT=${#COMP_LINE} COMP_WORDS=(" + quoted +
			") COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMP_TYPE=9 COMP_KEY=9\ncompopt() { :; }\n__start_walbaton\nfor w in \"${COMPREPLY[@]}\"; do echo \"${w%% *}\"; done"
		if got := shell(bash, "bash", "--norc", "-c"); !slices.Equal(got, want) {
			t.Errorf("bash: %q completes to %q, want %q", line, got, want)
		}
		fish := "source " + filepath.Join(share, "fish/vendor_completions.d/walbaton.fish") + "\ncomplete -C '" + line + "' | string split -f1 \\t; true" // split fails where nothing is to be split
		if got := shell(fish, "fish", "--no-config", "-c"); !slices.Equal(got, want) {
			t.Errorf("fish: %q completes to %q, want %q", line, got, want)
		}
	}
	// zsh completes within its line editor only: its function is read by compinit, and gives itself to walbaton.
	zsh := "fpath=(" + filepath.Join(share, "zsh/vendor-completions") + " $fpath); autoload -U compinit; compinit -D; print $_comps[walbaton]; autoload +X _walbaton; print $+functions[_walbaton]"
	if got := shell(zsh, "zsh", "-f", "-c"); !slices.Equal(got, []string{"1", "_walbaton"}) {
		t.Errorf("zsh: got %q", got)
	}
}
