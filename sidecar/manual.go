package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newManCommand is for those who make packages: it has no line in the help.
func newManCommand(w world) *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the manual pages into a folder",
		Hidden: true,
		Long: `Write man1/walbaton.1, a page for each verb and man5/walbaton.yml.5 into a folder, made
of the commands and settings of this very program. They carry the date of
SOURCE_DATE_EPOCH, as all that is built reproducibly.`,
		Example: `  walbaton man /usr/local/share/man`,
		Args:    takes(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			date := time.Now()
			if s, err := strconv.ParseInt(w.getenv("SOURCE_DATE_EPOCH"), 10, 64); err == nil {
				date = time.Unix(s, 0)
			}
			for name, page := range manual(c.Root(), date) {
				path := filepath.Join(args[0], name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					return fmt.Errorf("write manual pages: %w", err)
				}
				if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
					return fmt.Errorf("write manual pages: %w", err)
				}
			}
			return nil
		},
	}
}

// manual gives every page by the path where man looks for it.
func manual(root *cobra.Command, date time.Time) map[string]string {
	pages := map[string]string{"man5/walbaton.yml.5": settingsPage(date), "man1/walbaton.1": rootPage(root, date)}
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() {
			pages["man1/walbaton-"+c.Name()+".1"] = verbPage(c, date)
		}
	}
	return pages
}

func rootPage(root *cobra.Command, date time.Time) string {
	r := newRoff("walbaton", 1, root.Short, date)
	r.heading("SYNOPSIS")
	r.line(`.B walbaton`)
	r.line(`.I verb`)
	r.line(`.RI [ flags ]`)
	r.heading("DESCRIPTION")
	r.text(root.Long)
	r.heading("VERBS")
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() {
			r.item(bold("walbaton-"+c.Name())+"(1)", c.Short)
		}
	}
	r.heading("EXIT STATUS")
	for _, e := range []struct {
		code int
		what string
	}{
		{exitOK, "It worked, and what it looked at is in order."},
		{exitFailed, "It did not work. Of fetch: the file is proven not to be in the archive, or, on a standby, nobody can say."},
		{exitUsage, "The command line or the configuration is wrong."},
		{exitFound, "It worked, and what it looked at is not in order, or cannot be reached."},
		{exitSignal, "Ended by SIGTERM or SIGINT before it was done."},
		{exitCannotSay, "Of fetch: nobody can say whether the archive has the file. Recovery stops, and can be resumed."},
	} {
		r.item(bold(strconv.Itoa(e.code)), e.what)
	}
	r.heading("FILES")
	r.item(italic(defaultConfigFile), "The settings, see "+"walbaton.yml(5).")
	r.seeAlso("walbaton-wal(1)", "walbaton.yml(5)", "patroni(1)")
	return r.String()
}

func verbPage(c *cobra.Command, date time.Time) string {
	r := newRoff("walbaton-"+c.Name(), 1, c.Short, date)
	r.heading("SYNOPSIS")
	r.line(".B walbaton " + unread(c.Name()))
	words := strings.TrimSpace(strings.TrimPrefix(c.Use, c.Name()))
	if c.Flags().HasAvailableFlags() {
		words = strings.TrimSpace("[flags] " + words)
	}
	if words != "" {
		r.line(unreadLine(words))
	}
	r.heading("DESCRIPTION")
	if c.Long == "" {
		r.text(c.Short + ".")
	}
	r.text(c.Long)
	if c.Flags().HasAvailableFlags() {
		r.heading("OPTIONS")
		c.Flags().VisitAll(func(f *pflag.Flag) {
			value, help := pflag.UnquoteUsage(f)
			name := bold("--" + f.Name)
			if value != "" {
				name += "=" + italic(value)
			}
			r.item(name, sentence(help))
		})
	}
	if c.Example != "" {
		r.heading("EXAMPLES")
		r.text(c.Example)
	}
	r.seeAlso("walbaton(1)", "walbaton.yml(5)")
	return r.String()
}

func settingsPage(date time.Time) string {
	r := newRoff("walbaton.yml", 5, "settings of walbaton", date)
	r.heading("DESCRIPTION")
	r.text(`walbaton reads ` + defaultConfigFile + `, or the file that --config or WALBATON_CONFIG names, and Patroni's own configuration.
The name of the cluster and of the member, the DCS and the address of PostgreSQL come from there, so that two lines are enough:

  archive: {url: s3://bucket/prefix}
  patroni_config: /etc/patroni/config.yml

It is YAML; a dot in a key below is a level of the file. A flag beats the environment, and that beats the file. Unknown keys are errors.
${NAME} in a value becomes that environment variable; $${ stands for ${ itself. Secrets have no flag: the key that ends in _file names a file with the secret.

Times are written as 15s, 2m or 1h30m, those of retention also as 14d or 2w; sizes as 64MB or 1GB, where 1 kB is 1024 bytes.

The same WAL can go to several archives:

  archives:
    - {name: near, url: file:///mnt/archive}
    - {name: far, url: s3://bucket/prefix, required: false}`)
	r.heading("KEYS")
	for _, s := range settings() {
		key, also := bold(s.key), "Also --"+s.flagName()+" and "+s.envName()+"."
		if s.secret {
			key, also = key+", "+bold(s.key+"_file"), "Also "+s.envName()+"."
		}
		if s.value != "" {
			also = "Default " + s.value + ". " + also
		}
		r.item(key, sentence(strings.ReplaceAll(s.help, "`", ""))+" "+also)
	}
	r.heading("FILES")
	r.line(italic(defaultConfigFile))
	r.seeAlso("walbaton(1)", "walbaton-sidecar(1)")
	return r.String()
}

// sentence makes one of the help of a flag.
func sentence(help string) string {
	return strings.ToUpper(help[:1]) + strings.TrimSuffix(help[1:], ".") + "."
}

// roff is a page in the language of man(7).
type roff struct{ strings.Builder }

func newRoff(name string, section int, short string, date time.Time) *roff {
	r := &roff{}
	r.line(fmt.Sprintf(`.TH %q %d %q %q "walbaton"`, strings.ToUpper(name), section, date.UTC().Format(time.DateOnly), "walbaton "+version()))
	r.heading("NAME")
	r.line(unread(name) + ` \- ` + unread(strings.ToLower(short[:1])+short[1:]))
	return r
}

func (r *roff) line(s string) { r.WriteString(s + "\n") }

func (r *roff) heading(s string) { r.line(".SH " + s) }

// item is a term, already marked up, and what there is to say about it.
func (r *roff) item(term, text string) {
	r.line(".TP")
	r.line(term)
	r.line(unreadLine(text))
}

// text takes paragraphs as the help has them: what is indented stays as it is.
func (r *roff) text(s string) {
	literal, apart, first := false, false, true // apart: an empty line came before
	for line := range strings.Lines(s) {
		line = strings.TrimRight(line, " \n")
		indented := strings.HasPrefix(line, " ")
		switch {
		case line == "":
			apart = true
			continue
		case indented && !literal:
			if !first {
				r.line(".PP")
			}
			r.line(".EX")
		case !indented && literal:
			r.line(".EE\n.PP")
		case apart && literal:
			r.line("")
		case apart:
			r.line(".PP")
		}
		r.line(unreadLine(line))
		literal, apart, first = indented, false, false
	}
	if literal {
		r.line(".EE")
	}
}

func (r *roff) seeAlso(pages ...string) {
	r.heading("SEE ALSO")
	for i, p := range pages {
		name, section, _ := strings.Cut(p, "(")
		end := ","
		if i == len(pages)-1 {
			end = ""
		}
		r.line(".BR " + unread(name) + " (" + section + end)
	}
	r.line(".PP")
	r.line("https://github.com/walbaton/walbaton has the handbook in its folder docs.")
}

func bold(s string) string   { return `\fB` + unread(s) + `\fR` }
func italic(s string) string { return `\fI` + unread(s) + `\fR` }

// unread keeps roff from reading what is text. A bare - would become a hyphen, which nobody can paste into a shell.
func unread(s string) string { return strings.NewReplacer(`\`, `\e`, `-`, `\-`).Replace(s) }

// unreadLine is unread for a whole line, which a dot or an apostrophe at its beginning would make a request.
func unreadLine(s string) string {
	s = unread(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}
