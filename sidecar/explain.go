package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/leader"
)

// explainTime bounds what a sidecar does to explain one file.
const explainTime = 30 * time.Second

// explanation is what `explain --json` prints: what the archiver knows, and what the members say.
type explanation struct {
	archiver.Explanation
	Member  string       `json:"member"` // whose sidecar explains
	Leader  string       `json:"leader,omitempty"`
	Holder  string       `json:"baton_holder,omitempty"`
	Members []memberCopy `json:"members"`
	Next    []string     `json:"next"` // what to do, one sentence each
}

// memberCopy says what a member's live record says of a segment.
type memberCopy struct {
	Member  string `json:"member"`
	Sidecar bool   `json:"sidecar"` // its sidecar is alive
	Has     bool   `json:"has"`     // a good copy
	Misses  bool   `json:"misses"`  // and does not know it in the archive
}

func newExplainCommand(w world) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "explain <name>",
		Short: "Say all about one WAL file: where it is, who may ship it, what a push is told and why",
		Long: `Ask this node's sidecar about one file of pg_wal: where it is (here, set aside, in the
archive, in orphans/, at other members), whether it lies on the cluster's line, who may
ship it now and why not, which row of the table answers a push, and what to do next.
Asking changes nothing.

Exit code 0: no person is needed. 3: one is (the text says for what). 1: no sidecar answers.`,
		Example: `  walbaton explain 000000010000000000000007
  walbaton explain 00000002.history --json`,
		Args: takes(cobra.ExactArgs(1)),
	}
	addSettings(c, "socket")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.RunE = func(c *cobra.Command, args []string) error {
		cfg, err := configOf(c, w)
		if err != nil {
			return err
		}
		message, err := askSidecar(c.Context(), cfg.Socket, "explain", args[0])
		if err != nil {
			return err
		}
		var e explanation
		if err := json.Unmarshal([]byte(message), &e); err != nil {
			return fmt.Errorf("ask the sidecar on %s: %w", cfg.Socket, err)
		}
		if asJSON {
			enc := json.NewEncoder(w.stdout)
			enc.SetEscapeHTML(false)
			enc.SetIndent("", "  ")
			err = enc.Encode(e)
		} else {
			err = printExplanation(w.stdout, e)
		}
		if err == nil && e.Push.Disputed {
			err = justCode(exitFound)
		}
		return err
	}
	return c
}

// Explain answers `walbaton explain`; the message is an explanation as JSON.
func (a *app) Explain(ctx context.Context, name string) Answer {
	s, why := a.current()
	if s == nil {
		return Answer{exitFailed, "explain " + name + ": the archive is not open: " + why + " (walbaton status says more)"}
	}
	n, err := wal.ParseName(name, s.archiver.Archive().SegmentSize())
	if err != nil {
		return Answer{exitUsage, fmt.Sprintf("explain: %v (a WAL file is called like 000000010000000000000007 or 00000002.history)", err)}
	}
	ctx, cancel := s.bound(ctx)
	defer cancel()
	ctx, cancel = context.WithTimeout(ctx, explainTime)
	defer cancel()
	e := explanation{Explanation: s.archiver.Explain(ctx, n), Member: a.cfg.Name, Members: []memberCopy{}}
	if v, ok := a.elector.View(); ok {
		e.Leader = v.Cluster.Leader
		if !a.cfg.rest() { // it has none
			e.Holder = v.Baton.Holder
		}
		e.Members = e.memberCopies(v, n)
	}
	e.Next = e.steps()
	return answerJSON(e)
}

func answerJSON(v any) Answer {
	b, err := json.Marshal(v)
	if err != nil {
		return Answer{exitFailed, err.Error()}
	}
	return Answer{exitOK, string(b)}
}

// memberCopies says what the live records list; our own may be a moment old, and what is here is known.
func (e explanation) memberCopies(v leader.View, n wal.Name) []memberCopy {
	out := []memberCopy{}
	for _, name := range memberNames(v) {
		r, live := v.Records[name]
		m := memberCopy{Member: name, Sidecar: live}
		if n.Kind == wal.KindSegment && live {
			m.Has = r.Has.Has(uint32(n.Segment.Timeline), n.Segment.No)
			m.Misses = r.Misses.Has(uint32(n.Segment.Timeline), n.Segment.No)
		}
		if name == e.Member {
			m.Has = slices.ContainsFunc(e.Here, func(c archiver.Copy) bool { return c.Good })
			m.Misses = m.Has && e.Archive.State == "absent"
		}
		out = append(out, m)
	}
	return out
}

// memberNames are Patroni's members and those that have a sidecar.
func memberNames(v leader.View) []string {
	names := map[string]bool{}
	for name := range v.Cluster.Members {
		names[name] = true
	}
	for name := range v.Records {
		names[name] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// printExplanation writes for people.
func printExplanation(w io.Writer, e explanation) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, a %s of timeline %d", e.Name, e.Kind, e.Timeline)
	if e.Begin != "" {
		fmt.Fprintf(&b, ", %s to %s", e.Begin, e.End)
	}
	b.WriteString("\n\n")
	t := tabwriter.NewWriter(&b, 2, 8, 2, ' ', 0)
	row := func(what, format string, args ...any) {
		fmt.Fprintf(t, "%s\t"+format+"\n", append([]any{what}, args...)...)
	}
	row("line", "%s", e.lineText())
	for _, c := range e.Here {
		row(c.Where, "%s", copyText(c))
	}
	if len(e.Here) == 0 {
		row("pg_wal", "%s has no such file", e.Member)
	}
	row("archive", "%s", e.archiveText())
	for _, in := range e.Archives {
		row("  "+in.Name, "%s", inText(in))
	}
	for _, o := range e.Orphans {
		row("orphans", "a copy of %s, digest %v", o.Member, o.Digest)
	}
	for _, r := range e.Decisions {
		row("decided", "%s", decisionText(r))
	}
	if e.Kind == wal.KindSegment.String() {
		for _, m := range e.Members {
			row("member", "%s", e.memberText(m))
		}
	}
	row("ship", "%s", e.shipText())
	row("push", "%s", e.pushText())
	if err := t.Flush(); err != nil {
		return err
	}
	if len(e.Next) > 0 {
		b.WriteString("\nnext\n")
	}
	for _, s := range e.Next {
		fmt.Fprintf(&b, "  %s\n", strings.ReplaceAll(s, "\n", "\n    "))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (e explanation) lineText() string {
	var s string
	switch {
	case e.BelowFloor:
		s = "below the floor " + e.Floor + ", the archive promises nothing about it"
	case e.Line == 0:
		return "not known: Patroni has had no leader since this sidecar started"
	default:
		s = e.Place
	}
	s += fmt.Sprintf("; the cluster is on timeline %d", e.Line)
	if e.Fork != "" {
		s += fmt.Sprintf(", and left timeline %d at %s", e.Timeline, e.Fork)
	}
	return s
}

func copyText(c archiver.Copy) string {
	var parts []string
	switch {
	case c.Writing && c.State == wal.Foreign.String():
		return "made for later, " + sizeText(c.Size) + ", not begun"
	case c.Writing && c.State != "":
		return "being written, " + sizeText(c.Size) + ", so far up to " + c.Records
	case c.Status == "ready":
		parts = append(parts, "waits (.ready)")
	case c.Status == "done":
		parts = append(parts, "archived, as PostgreSQL sees it (.done)")
	case c.Status != "":
		parts = append(parts, "no status file")
	default:
		parts = append(parts, "set aside")
	}
	parts = append(parts, sizeText(c.Size))
	switch {
	case c.Good:
		parts = append(parts, "checked good")
	case c.State == "":
		return strings.Join(append(parts, c.Problem), ", ")
	default:
		parts = append(parts, fmt.Sprintf("%s: %s", c.State, c.Problem))
	}
	if c.Records != "" && !c.Good {
		parts = append(parts, "good up to "+c.Records)
	}
	return strings.Join(append(parts, "digest "+c.Digest.String()), ", ")
}

func (e explanation) archiveText() string {
	a := e.Archive
	from := ""
	if a.Member != "" {
		from = ", put by " + a.Member
		if a.Term != 0 {
			from += fmt.Sprintf(" in term %d", a.Term)
		}
	}
	switch a.State {
	case "absent":
		return "does not have it"
	case "silent":
		return "does not answer: " + a.Problem
	case "same":
		return "has this very content" + from
	case "different":
		return "has another content" + from + fmt.Sprintf(", digest %v", a.Digest)
	case "damaged":
		return "has a damaged copy" + from + ": " + a.Problem
	}
	return "has it" + from + fmt.Sprintf(", digest %v", a.Digest)
}

func inText(in archiver.InArchive) string {
	s := map[string]string{"has": "has it", "absent": "does not have it", "silent": "does not answer", "damaged": "has a damaged copy", "not promised": "need not have it"}[in.State]
	if in.Problem != "" {
		s += ": " + in.Problem
	}
	if !in.Required {
		s += " (not required)"
	}
	return s
}

func decisionText(r archiver.Resolution) string {
	what := fmt.Sprintf("%s for the copy %v", r.Decision, r.Digest)
	if r.Decision == archiver.Apart {
		what = fmt.Sprintf("timeline %d of %s is not the archive's", r.Timeline, r.Member)
	}
	if r.By == "" {
		r.By = "somebody"
	}
	return fmt.Sprintf("%s, by %s at %s: %s", what, r.By, r.Via, r.Reason)
}

func (e explanation) memberText(m memberCopy) string {
	s := m.Member
	var roles []string
	if m.Member == e.Leader {
		roles = append(roles, "leader")
	}
	if m.Member == e.Holder {
		roles = append(roles, "holds the baton")
	}
	if len(roles) > 0 {
		s += " (" + strings.Join(roles, ", ") + ")"
	}
	switch {
	case !m.Sidecar:
		return s + ": no sidecar answers"
	case m.Misses:
		return s + ": has a good copy, and does not know it in the archive"
	case m.Has:
		return s + ": has a good copy"
	}
	return s + ": lists no good copy"
}

func (e explanation) shipText() string {
	switch {
	case e.Archive.State == "same", e.Archive.State == "present", e.Archive.State == "different", e.Archive.State == "damaged":
		return "nobody: the archive has the name, and nothing in it is overwritten"
	case e.writing():
		return "nobody yet"
	case !e.MayShip:
		return "not this node: " + e.WhyNot
	case len(e.Here) > 0 && !e.Here[0].Good && !e.accepted():
		return "not this node: the check refuses its copy"
	case e.Failed != "":
		return "this node; the last try failed: " + e.Failed
	case len(e.Here) == 0:
		return "this node might, and does not have it"
	}
	return "this node may"
}

// writing says that PostgreSQL has not finished the file.
func (e explanation) writing() bool { return len(e.Here) > 0 && e.Here[0].Writing }

// accepted says whether an administrator accepted the copy that is here.
func (e explanation) accepted() bool {
	return slices.ContainsFunc(e.Decisions, func(r archiver.Resolution) bool {
		return r.Decision == archiver.Accept && r.Digest == e.Here[0].Digest
	})
}

// pushText says what the table of docs/push.md answers.
func (e explanation) pushText() string {
	if e.writing() {
		return "nobody asks yet: PostgreSQL has not finished it"
	}
	p := e.Push
	s := "row " + p.Row + ": "
	switch {
	case p.Act == archiver.Orphan:
		s += "a copy of ours goes to orphans/, and "
	case p.Act == archiver.Keep:
		s += "a copy goes to keep_dir unless the leader has it, and "
	case p.Act == archiver.Put:
		return s + "it is put at once, and the answer is 0 when it is stored"
	case p.Act == archiver.Wait:
		return s + "waits for up to push_wait; the answer is 0 as soon as it is stored, else 1: " + p.Why
	}
	if p.Code == 0 {
		return s + "the answer is 0"
	}
	return s + "the answer is 1: " + p.Why
}

// apart is the step for a timeline that two servers were promoted to; the cluster's own is none.
func (e explanation) apart() []string {
	if e.Member == e.Leader && e.Timeline == e.Line {
		return nil
	}
	return []string{fmt.Sprintf("if this node was promoted to the same number as another: walbaton resolve --member %s --timeline %d --reason '...'", e.Member, e.Timeline)}
}

// beside says that the file's timeline is above the leader's, and another member leads.
func (e explanation) beside() bool {
	return e.Leader != "" && e.Leader != e.Member && e.Line != 0 && e.Timeline > e.Line && len(e.Here) > 0
}

// steps says what to do next.
func (e explanation) steps() []string {
	keep := "walbaton resolve " + e.Name + " --keep-archive --reason '...'"
	accept := "walbaton resolve " + e.Name + " --accept --reason '...'"
	switch p := e.Push; {
	case e.Archive.State == "silent":
		return []string{"see that the archive can be reached; pushes wait, and nothing is lost"}
	case len(e.Here) == 0:
		return nil
	case e.writing():
		return []string{"nothing: PostgreSQL has not finished it"}
	case p.Code == 0:
		return []string{"nothing: PostgreSQL is told 0 when it asks"}
	case p.Row == "4c":
		return append([]string{
			"read both: walbaton fetch " + e.Name + " /tmp/" + e.Name + ", and the one in pg_wal",
			"if the archive's is the cluster's: " + keep,
		}, e.apart()...)
	case p.Row == "6b":
		return []string{
			"to repair the archive: remove the object " + e.Archive.Key + " with a tool of the store;\nours is whole, and is shipped in its place",
			"to leave it damaged, so that no restore gets across it: " + keep,
		}
	case p.Row == "6c":
		return append([]string{
			"find out which is the cluster's: walbaton fetch " + e.Name + " /tmp/" + e.Name + ",\nand pg_waldump on both",
			"if the archive's is: " + keep,
		}, e.apart()...)
	case p.Row == "7":
		return []string{"start PostgreSQL, or see with walbaton status who ships; what is set aside is shipped from there"}
	case p.Row == "8" && e.Archive.State == "absent":
		return []string{
			"wait a minute while the cluster changes its leader: the new timeline explains it",
			"if none comes, and no other node has more: " + accept,
		}
	case p.Row == "8":
		return []string{"if the archive's is the cluster's: " + keep}
	case p.Row == "9" && e.Archive.State == "absent":
		for _, m := range e.Members {
			if m.Has && m.Member != e.Member {
				return []string{"nothing: " + m.Member + " has a good copy, and ships it"}
			}
		}
		return []string{
			"look for a good copy on the other nodes and in backups, and put it in the place of this one",
			"if there is none: " + accept + "\nrestores then end at the damage, and need a new base backup to go on",
		}
	case p.Row == "9":
		return []string{"if the archive's is the cluster's: " + keep}
	case e.beside():
		return []string{
			"nothing, if it has just been promoted, or its leader has",
			fmt.Sprintf("if somebody promoted it beside Patroni's leader %s: start Patroni here, which rewinds it (docs/operations.md),\nor walbaton resolve --member %s --timeline %d --reason '...'",
				e.Leader, e.Member, e.Timeline),
		}
	case p.Row == "10":
		return []string{"see that the archive can be reached: " + e.Failed}
	}
	return []string{"see with walbaton status who ships, and what keeps it from doing so"}
}
