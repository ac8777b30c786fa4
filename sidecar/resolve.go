package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/wal"
)

// resolveRequest is what the socket's word "resolve" takes, as JSON.
type resolveRequest struct {
	Decision archiver.Decision `json:"decision"`
	Name     string            `json:"name,omitempty"`
	Digest   seal.Digest       `json:"digest,omitzero"` // of the copy that the user was shown
	Member   string            `json:"member,omitempty"`
	Timeline wal.Timeline      `json:"timeline,omitempty"`
	Reason   string            `json:"reason"`
	By       string            `json:"by"`
	Record   bool              `json:"record"` // false: only say what it would do
}

func newResolveCommand(w world) *cobra.Command {
	var f resolveFlags
	c := &cobra.Command{
		Use:   "resolve <name> --keep-archive|--accept | resolve --member M --timeline T",
		Short: "Decide about a file that pushes are refused for, with a reason that is recorded",
		Long: `Decide where no waiting helps. walbaton explain says which decision fits.

  <name> --keep-archive      the archive's file of this name counts: this node's copy goes
                             to orphans/, and push answers 0
  <name> --accept            this node's copy, which the check refused, is shipped as it is
  --member M --timeline T    M was promoted to a timeline number that another node has too:
                             what M has of it goes to orphans/ where it differs

A decision about a file names the digest of the copy that is here now, and counts for
that content alone, on every node. It is recorded in the archive, below resolved/, and
never deleted. What would be done is shown first, and asked about on a terminal.

Exit code 0: it is recorded. 1: refused, not confirmed, or no sidecar answers.`,
		Example: `  walbaton resolve 000000010000000000000007 --keep-archive --reason 'written by the fenced node, see ticket 12'
  walbaton resolve 000000010000000000000007 --accept --reason 'disk error, no other copy'
  walbaton resolve --member n2 --timeline 4 --reason 'split brain on 2026-11-21'`,
		Args: takes(cobra.MaximumNArgs(1)),
	}
	addSettings(c, "socket")
	c.Flags().BoolVar(&f.keep, "keep-archive", false, "the archive's file counts, this node's copy goes to orphans/")
	c.Flags().BoolVar(&f.accept, "accept", false, "ship this node's copy though the check refused it")
	c.Flags().StringVar(&f.member, "member", "", "`name` of the member whose timeline is not the archive's")
	c.Flags().StringVar(&f.timeline, "timeline", "", "`number` of that timeline, as Patroni shows it")
	c.Flags().StringVar(&f.reason, "reason", "", "`text` for those who read the record later")
	c.Flags().BoolVar(&f.yes, "yes", false, "do not ask")
	c.Flags().BoolVar(&f.json, "json", false, "print JSON")
	c.RunE = func(c *cobra.Command, args []string) error {
		req, err := f.request(args)
		if err != nil {
			return usageError(c, err)
		}
		req.By = userName(w)
		cfg, err := configOf(c, w)
		if err != nil {
			return err
		}
		plan, err := askResolve(c.Context(), cfg.Socket, &req)
		if err != nil {
			return err
		}
		if !f.json {
			if _, err := io.WriteString(w.stdout, planText(plan, req)); err != nil {
				return err
			}
		}
		if !f.yes && !plan.Already {
			if err := confirm(c, w, f.json, "resolve", "Decide so?", "nothing was decided"); err != nil {
				return err
			}
		}
		req.Record = true
		if plan, err = askResolve(c.Context(), cfg.Socket, &req); err != nil {
			return err
		}
		return printResolved(w.stdout, plan, req, f.json)
	}
	return c
}

type resolveFlags struct {
	keep, accept, yes, json  bool
	member, timeline, reason string
}

// request refuses what does not fit together.
func (f resolveFlags) request(args []string) (resolveRequest, error) {
	r := resolveRequest{Reason: f.reason, Member: f.member}
	file, timeline := len(args) == 1, f.member != "" || f.timeline != ""
	switch {
	case !file && !timeline:
		return r, errors.New("resolve: name a file, or a member and its timeline")
	case file && timeline:
		return r, errors.New("resolve: either a file, or --member and --timeline")
	case file && f.keep == f.accept:
		return r, errors.New("resolve: a file needs either --keep-archive or --accept")
	case timeline && (f.keep || f.accept):
		return r, errors.New("resolve: --keep-archive and --accept are for a file, not for a timeline")
	case timeline && (f.member == "" || f.timeline == ""):
		return r, errors.New("resolve: --member and --timeline belong together")
	case strings.TrimSpace(f.reason) == "":
		return r, errors.New("resolve: --reason is needed: it is recorded with the decision")
	}
	if timeline {
		n, err := strconv.ParseUint(f.timeline, 10, 32)
		if err != nil || n == 0 || f.timeline[0] == '0' {
			return r, fmt.Errorf("resolve: --timeline %q is not a timeline's number in decimal, as Patroni shows it", f.timeline)
		}
		r.Decision, r.Timeline = archiver.Apart, wal.Timeline(n)
		return r, nil
	}
	r.Name, r.Decision = args[0], archiver.KeepArchive
	if f.accept {
		r.Decision = archiver.Accept
	}
	return r, nil
}

// userName says who decides; behind sudo, the person.
func userName(w world) string {
	name := "user " + strconv.Itoa(os.Getuid())
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if person := w.getenv("SUDO_USER"); person != "" && person != name {
		return person + " as " + name
	}
	return name
}

// askResolve sends the request. The copy that the plan is about is the one that the next request names.
func askResolve(ctx context.Context, socket string, req *resolveRequest) (archiver.Plan, error) {
	b, err := json.Marshal(req)
	if err != nil {
		return archiver.Plan{}, err
	}
	message, err := askSidecar(ctx, socket, "resolve", string(b))
	if err != nil {
		return archiver.Plan{}, err
	}
	var p archiver.Plan
	if err := json.Unmarshal([]byte(message), &p); err != nil {
		return p, fmt.Errorf("ask the sidecar on %s: %w", socket, err)
	}
	req.Digest = p.Resolution.Digest
	return p, nil
}

// confirm asks the person at the terminal; otherwise says what did not happen.
func confirm(c *cobra.Command, w world, asJSON bool, verb, question, otherwise string) error {
	in, ok := c.InOrStdin().(*os.File)
	if asJSON || !ok || !isTerminal(in) {
		return withHint(withCode(exitUsage, fmt.Errorf("%s: nobody can be asked here, and %s", verb, otherwise)), "give --yes to do it without a question")
	}
	if _, err := io.WriteString(w.stdout, "\n"+question+" [y/N] "); err != nil {
		return err
	}
	if err := readable(c.Context(), in); err != nil {
		_, _ = io.WriteString(w.stdout, "\n") // below the question
		return fmt.Errorf("%s: %s: %w", verb, otherwise, err)
	}
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: %w", verb, err)
	}
	if !slices.Contains([]string{"y", "yes"}, strings.ToLower(strings.TrimSpace(line))) {
		return fmt.Errorf("%s: %s", verb, otherwise)
	}
	return nil
}

// readable returns when there is something to read, a line where somebody types, or when ctx ends: a read from a terminal does not end with it.
func readable(ctx context.Context, f *os.File) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}, 100)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if n > 0 {
			return nil
		}
	}
}

// planText says what a decision does, before it is taken.
func planText(p archiver.Plan, req resolveRequest) string {
	var b strings.Builder
	r := p.Resolution
	switch {
	case p.Already:
		b.WriteString("it was decided before, and counts\n")
		return b.String()
	case r.Decision == archiver.Apart:
		fmt.Fprintf(&b, "timeline %d of %s is not the archive's", r.Timeline, r.Member)
		if r.Found != "" {
			fmt.Fprintf(&b, ": %s", r.Found)
		} else {
			fmt.Fprintf(&b, "; %s cannot look into its pg_wal, so make sure of it", r.Via)
		}
		fmt.Fprintf(&b, "\n  what %s has of it goes to orphans/ where the archive has another content, where it lies off the\n  line, and, while %s is a primary on it, where the archive has nothing yet; push answers 0 there\n", r.Member, r.Member)
		fmt.Fprintf(&b, "  while %s is Patroni's leader on timeline %d the decision rests\n", r.Member, r.Timeline)
	case r.Decision == archiver.Accept:
		fmt.Fprintf(&b, "%s is refused by row %s: %s\n", r.Name, p.Row, r.Found)
		fmt.Fprintf(&b, "  ours, digest %v, is shipped as it is, and stays in the archive under this name\n", r.Digest)
		b.WriteString("  restores get it as it is: they end where it is damaged or cut\n")
	default:
		fmt.Fprintf(&b, "%s is refused by row %s: %s\n", r.Name, p.Row, r.Found)
		fmt.Fprintf(&b, "  ours, digest %v, goes to orphans/, and push answers 0: PostgreSQL may remove it\n", r.Digest)
		if p.Archive.State == "damaged" {
			fmt.Fprintf(&b, "  the archive's stays as it is, damaged (%s): no restore gets across it\n", p.Archive.Problem)
		} else {
			b.WriteString("  the archive's stays as it is, and restores get that\n")
		}
	}
	fmt.Fprintf(&b, "  recorded in %s, for ever\n", p.Key)
	return b.String()
}

func printResolved(w io.Writer, p archiver.Plan, req resolveRequest, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(p)
	}
	text := ""
	switch {
	case p.Already:
	case req.Decision == archiver.Apart && p.Resolution.Via == req.Member:
		text = "decided; PostgreSQL tries again within a minute, and is told 0\n"
	case req.Decision == archiver.Apart:
		text = fmt.Sprintf("decided; the sidecar of %s honours it within a minute of the next push that it would refuse\n", req.Member)
	case req.Decision == archiver.Accept:
		text = "decided; it is shipped as soon as this node may, see walbaton explain " + req.Name + "\n"
	default:
		text = "decided; PostgreSQL tries again within a minute, and is told 0\n"
	}
	_, err := io.WriteString(w, text)
	return err
}

// Resolve answers `walbaton resolve`: request is a resolveRequest, and the message is a plan, both as JSON.
func (a *app) Resolve(ctx context.Context, request string) Answer {
	var req resolveRequest
	d := json.NewDecoder(bytes.NewReader([]byte(request)))
	d.DisallowUnknownFields()
	if err := d.Decode(&req); err != nil {
		return Answer{exitUsage, fmt.Sprintf("resolve: read the request: %v", err)}
	}
	s, why := a.current()
	if s == nil {
		return Answer{exitFailed, "resolve: the archive is not open: " + why + " (walbaton status says more)"}
	}
	o := archiver.Order{Decision: req.Decision, Digest: req.Digest, Member: req.Member, Timeline: req.Timeline, Reason: req.Reason, By: req.By}
	about := req.Name
	if req.Decision == archiver.Apart {
		about = fmt.Sprintf("timeline %d of %s", req.Timeline, req.Member)
		if err := a.knowsMember(req.Member); err != nil {
			return Answer{exitFailed, fmt.Sprintf("resolve %s: %v", about, err)}
		}
	} else {
		var err error
		if o.Name, err = wal.ParseName(req.Name, s.archiver.Archive().SegmentSize()); err != nil {
			return Answer{exitUsage, fmt.Sprintf("resolve: %v (a WAL file is called like 000000010000000000000007 or 00000002.history)", err)}
		}
	}
	ctx, cancel := s.bound(ctx)
	defer cancel()
	ctx, cancel = context.WithTimeout(ctx, 2*explainTime)
	defer cancel()
	do := s.archiver.Consider
	if req.Record {
		do = s.archiver.Resolve
	}
	p, err := do(ctx, o)
	if err != nil {
		return Answer{exitFailed, fmt.Sprintf("resolve %s: %v", about, err)}
	}
	return answerJSON(p)
}

func (a *app) knowsMember(name string) error {
	v, ok := a.elector.View()
	if !ok {
		return errors.New("the DCS has not answered yet, so the members are not known")
	}
	if names := memberNames(v); !slices.Contains(names, name) {
		return fmt.Errorf("no member is called %q; Patroni has %s", name, strings.Join(names, ", "))
	}
	return nil
}
