package main

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/walbaton/walbaton/leader"
)

func newStatusCommand(w world) *cobra.Command {
	var asJSON bool
	var address string
	c := &cobra.Command{
		Use:   "status",
		Short: "Show who ships, what the archive has, and what waits",
		Long: `Show what a sidecar knows: the members of the cluster, who holds the baton, up to where
the archive has no hole, between which moments one can restore, and what waits or needs a person. Any node's sidecar shows
the whole cluster.

Lines that begin with ! say what is not in order, lines with - what could be better.

Exit code 0: all is in order. 3: something is not. 1: no sidecar answers.`,
		Example: `  walbaton status
  walbaton status --address 10.0.0.7:9847
  walbaton status --json | jq .archive.frontier_lsn`,
		Args: takes(cobra.NoArgs),
	}
	addSettings(c, "listen", "web.username", "web.ca")
	c.Flags().StringVar(&address, "address", "", "`host:port` of the sidecar to ask, after https:// where the configuration does not say so (default: the local one, by --listen)")
	c.Flags().BoolVar(&asJSON, "json", false, "print /status.json as it is")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := configOf(c, w)
		if err != nil {
			return err
		}
		if address == "" {
			address = localAddress(cfg.Listen)
		}
		if !isAddress(address) {
			return usageError(c, notAddress(address))
		}
		ask, err := cfg.Web.asker()
		if err != nil {
			return err
		}
		st, raw, err := ask.status(c.Context(), address)
		if err != nil {
			return withHint(err, askHint(err))
		}
		if asJSON {
			_, err = w.stdout.Write(raw)
		} else {
			st.askHolder(c.Context(), ask)
			err = printStatus(w.stdout, st)
		}
		if err == nil && len(st.problems()) > 0 {
			err = justCode(exitFound)
		}
		return err
	}
	return c
}

// localAddress is where a sidecar that listens on addr answers from this machine.
func localAddress(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// problems says what is not in order, one sentence each, the worst first.
func (st Status) problems() []string {
	var out []string
	for _, al := range st.Alarms {
		out = append(out, fmt.Sprintf("%s needs a person: %s (row %s; walbaton explain %s)", al.Name, al.Why, al.Row, al.Name))
	}
	if !st.Ready {
		out = append(out, st.Why)
	}
	out = append(out, st.Archive.Verify.problems()...)
	for _, m := range st.Members {
		if p := m.disk(st.Postgres.Pace); p != "" {
			out = append(out, p)
		}
	}
	for _, e := range st.Archive.Each {
		if e.Differs > 0 {
			out = append(out, fmt.Sprintf("the archive %s has other content than another one under %s: walbaton verify --archive %s --deep, and the same for the others", e.Name, counted(e.Differs, "name"), e.Name))
		}
	}
	if st.DCS.REST && !st.DCS.Answers {
		out = append(out, "Patroni's REST API does not answer: "+st.DCS.Error)
	}
	out = append(out, st.secondPrimaries()...)
	if st.Baton.Holder == "" && !st.DCS.REST && st.Baton.AsOf.IsZero() && st.DCS.ReadAt.Unix() > 0 && !st.DCS.Static {
		out = append(out, "nobody holds the baton: "+st.Baton.Why)
	}
	for _, m := range st.Members {
		if !m.Sidecar && !st.DCS.REST && len(st.Members) > 1 {
			out = append(out, fmt.Sprintf("no sidecar answers beside %s: what only it has is not protected", m.Name))
		}
	}
	if off := st.withMode("off"); len(off) > 0 {
		out = append(out, fmt.Sprintf("archive_mode is off at %s: PostgreSQL may remove WAL that the archive does not have\n  %s", strings.Join(off, ", "), st.howAlways()))
	}
	return out
}

// secondPrimaries says which members take writes beside Patroni's leader.
func (st Status) secondPrimaries() (out []string) {
	at := slices.IndexFunc(st.Members, func(m MemberStatus) bool { return m.Leader })
	for _, m := range st.Members {
		if at >= 0 && m.Primary && !m.Leader {
			out = append(out, fmt.Sprintf("%s is a primary, and Patroni's leader is %s: what %s writes is not the cluster's. Stop PostgreSQL there, or let Patroni do it (docs/operations.md)", m.Name, st.Members[at].Name, m.Name))
		}
	}
	return out
}

// disk says what becomes of a disk that fills with WAL for want of the archive, at a pace in bytes a second.
func (m MemberStatus) disk(pace uint64) string {
	keeps := fmt.Sprintf("%s keeps %s (%s) that the archive is not known to have", m.Name, counted(int(m.Misses), "segment"), sizeText(int64(m.Keeps)))
	switch {
	case m.Full && m.Misses > 0:
		return keeps + ", and its disk is full: PostgreSQL stops there\n  bring the archive back, or make the disk larger; delete nothing in pg_wal"
	case m.Full:
		return fmt.Sprintf("the disk of %s is full: PostgreSQL stops there", m.Name)
	case m.Free == 0 || m.Store || m.Misses == 0:
		return ""
	}
	keeps += fmt.Sprintf("; about %s are left on its disk", sizeText(int64(m.Free)))
	if left := lasts(m.Free, float64(pace)); left > 0 {
		keeps += fmt.Sprintf(", which last %s at the present %s of WAL a second", lastsText(left), sizeText(int64(pace)))
	}
	return keeps
}

// notes says what is in order and could be better.
func (st Status) notes() []string {
	out := append(append(st.noteTags(), st.noteMode()...), st.Archive.Verify.notes()...)
	if st.RetentionWhy != "" {
		out = append(out, "retention expires nothing: "+st.RetentionWhy)
	}
	for _, e := range st.Archive.Each {
		if !e.Required && !e.Answers {
			out = append(out, fmt.Sprintf("the archive %s, which is not required, does not answer: %s. It is filled when it does", e.Name, e.Why))
		}
	}
	if st.DCS.REST {
		out = append(out, `with dcs.kind rest each primary ships, a standby's WAL only once it is the primary, and no history file is
  hidden from a restore. What the others' sidecars do, ask each of them: walbaton status --address HOST:PORT`)
	}
	return out
}

func (st Status) noteTags() (out []string) {
	if st.DCS.REST || st.DCS.Static {
		return nil // there is no baton
	}
	for _, m := range st.Members {
		switch tag := leader.Tag(m.Tag); {
		case tag == leader.TagNever:
			out = append(out, fmt.Sprintf("%s has the tag walbaton: never: what only it has waits until another node has it too, and is lost with its disk", m.Name))
		case tag != "" && !tag.Known():
			out = append(out, fmt.Sprintf("%s has the tag walbaton: %s, which means nothing: it is %s or %s", m.Name, tag, leader.TagDesignated, leader.TagNever))
		}
	}
	return out
}

func (st Status) noteMode() []string {
	on := st.withMode("on")
	if len(on) == 0 || len(st.Members) < 2 || len(st.withMode("off")) > 0 { // on differs from always on standbys only
		return nil
	}
	return []string{fmt.Sprintf(`archive_mode is on at %s: what the archive lacks when the primary dies is healed from what
  is still in pg_wal elsewhere, which is best effort. With always each node keeps its WAL until the archive has it:
  %s`, strings.Join(on, ", "), st.howAlways())}
}

// withMode names the members whose PostgreSQL has this archive_mode.
func (st Status) withMode(mode string) (names []string) {
	for _, m := range st.Members {
		if m.ArchiveMode == mode {
			names = append(names, m.Name)
		}
	}
	return names
}

// howAlways is what to type for archive_mode = always.
func (st Status) howAlways() string {
	if st.DCS.Static {
		return `psql -c "alter system set archive_mode = 'always'", and restart PostgreSQL`
	}
	name := st.Scope
	if st.Group != nil {
		name = fmt.Sprintf("%s --group %d", strings.TrimSuffix(name, fmt.Sprintf("-%d", *st.Group)), *st.Group)
	}
	return fmt.Sprintf("patronictl edit-config %s -p archive_mode=always, and restart each node, replicas first (patronictl restart %s MEMBER)", name, name)
}

// printStatus writes for people.
func printStatus(w io.Writer, st Status) error {
	var b strings.Builder
	fmt.Fprintf(&b, "cluster   %s", st.Scope)
	if st.SystemID != 0 {
		fmt.Fprintf(&b, ", system identifier %d", st.SystemID)
	}
	if st.Archive.Timeline != 0 {
		fmt.Fprintf(&b, ", timeline %d", st.Archive.Timeline)
	}
	if st.DCS.Paused {
		b.WriteString(", Patroni is paused")
	}
	fmt.Fprintf(&b, "\nbaton     %s\n", st.Baton.sentence(st.Time))
	fmt.Fprintf(&b, "archive   %s\n          %s\n", st.Archive.URL, st.Archive.sentence(st.Time))
	for _, e := range st.Archive.Each {
		fmt.Fprintf(&b, "          %s\n", e.sentence(st.Time))
	}
	if text := st.window(); text != "" {
		fmt.Fprintf(&b, "window    %s\n", text)
	}
	if st.Restore != nil && st.Restore.Ahead > 0 {
		fmt.Fprintf(&b, "restore   %s\n", st.Restore.sentence())
	}
	b.WriteString("\n")
	t := tabwriter.NewWriter(&b, 2, 8, 2, ' ', 0)
	fmt.Fprintln(t, "MEMBER\tROLE\tSTATE\tTL\tBATON\tSIDECAR\tSTORE\tHAS\tNOT ARCHIVED\t")
	holds := mark(st.Baton.AsOf.IsZero(), "holds it", "held it")
	for _, m := range st.Members {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", m.Name, role(m), m.State, number(uint64(m.Timeline), m.Timeline != 0),
			mark(m.Baton, holds, m.Tag), mark(m.Sidecar, "alive", mark(st.DCS.REST, "-", "absent")), mark(m.Store, "answers", mark(m.Sidecar, "silent", "")),
			number(m.Has, m.Sidecar), number(m.Misses, m.Sidecar))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	problems, notes := st.problems(), st.notes()
	if len(problems)+len(notes) > 0 {
		fmt.Fprintln(&b)
	}
	for _, p := range problems {
		fmt.Fprintf(&b, "! %s\n", p)
	}
	for _, n := range notes {
		fmt.Fprintf(&b, "- %s\n", n)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (s BatonStatus) sentence(now time.Time) string {
	if !s.AsOf.IsZero() {
		return fmt.Sprintf("%s held it when the DCS answered last, %v ago", cmp.Or(s.Holder, "nobody"), now.Sub(s.AsOf).Round(time.Second))
	}
	if s.Holder == "" {
		if s.Why == "" {
			return "nobody holds it"
		}
		return "nobody holds it: " + s.Why
	}
	out := s.Holder + " holds it"
	if s.Term != 0 {
		out += fmt.Sprintf(", term %d", s.Term)
	}
	if !s.Since.IsZero() {
		out += fmt.Sprintf(", for %v", now.Sub(s.Since).Round(time.Second))
	}
	if s.Why != "" {
		out += " (" + s.Why + ")"
	}
	return out
}

func (s ArchiveStatus) sentence(now time.Time) string {
	if !s.Open {
		return "not open: " + s.Why
	}
	var parts []string
	if s.Segment != "" {
		parts = append(parts, fmt.Sprintf("whole from %s to %s (%s)", s.From, s.Frontier, s.Segment))
	} else {
		parts = append(parts, "nothing known yet above "+s.Floor)
	}
	switch {
	case s.Waiting == 0:
		parts = append(parts, "nothing waits here")
	case s.Waiting == 1:
		parts = append(parts, strings.TrimSuffix("1 segment waits here, "+s.Oldest, ", "))
	case s.Oldest == "":
		parts = append(parts, fmt.Sprintf("%d segments wait here", s.Waiting))
	default:
		parts = append(parts, fmt.Sprintf("%d segments wait here, from %s on", s.Waiting, s.Oldest))
	}
	if s.Lacks > 0 {
		parts = append(parts, fmt.Sprintf("%d more wait on other nodes", s.Lacks))
	}
	if s.Kept > 0 {
		parts = append(parts, fmt.Sprintf("%d files set aside", s.Kept))
	}
	if !s.Answers {
		parts = append(parts, "the archive does not answer: "+s.Why)
	} else if !s.LastTaken.IsZero() && s.LastTaken.Before(now) {
		parts = append(parts, fmt.Sprintf("took a file from this node %v ago", now.Sub(s.LastTaken).Round(time.Second)))
	}
	return strings.Join(parts, "; ")
}

func (s RestoreStatus) sentence() string {
	return fmt.Sprintf("PostgreSQL reads the archive: %s given, %d of them prefetched, %d while prefetching was under way; %d more are ready (%s), and it is to be %d ahead",
		counted(s.Window+s.Waited+s.Archive, "segment"), s.Window, s.Waited, s.Ready, sizeText(s.Bytes), s.Ahead)
}

// sentence is about one of several archives.
func (e EachArchive) sentence(now time.Time) string {
	s := e.Name
	if !e.Required {
		s += " (not required)"
	}
	switch {
	case !e.Answers && e.Since.IsZero():
		s += ": does not answer"
	case !e.Answers:
		s += fmt.Sprintf(": has not answered for %v", now.Sub(e.Since).Round(time.Second))
	default:
		s += ": answers"
	}
	if e.Frontier != "" {
		s += ", whole up to " + e.Frontier
	}
	if e.Lacks > 0 {
		s += ", lacks " + counted(e.Lacks, "segment")
	}
	return s
}

func role(m MemberStatus) string {
	out := m.Role
	if out == "" {
		out = "-"
	}
	if m.Leader && out != "primary" {
		out += " (leader)"
	}
	return out
}

func mark(yes bool, a, b string) string {
	if yes {
		return a
	}
	return b
}

func number(n uint64, known bool) string {
	if !known {
		return "-"
	}
	return fmt.Sprint(n)
}
