package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/durable"
	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/wal"
)

// verifyFlags are the flags of verify that are no settings.
type verifyFlags struct {
	deep, json, tree    bool
	timeline            uint32
	parallel            int
	systemID            uint64
	since, resume, svg  string
	acknowledge, reason string
}

func newVerifyCommand(w world) *cobra.Command {
	var f verifyFlags
	c := &cobra.Command{
		Use:   "verify",
		Short: "Look for holes and damage in the archive",
		Long: `List the archive and look for all that would stop a recovery: missing segments on each
timeline and where one leads to the next, missing timeline numbers, histories that
contradict one another, objects that are not what their name says. What lies
below a floor is no hole.

It reads the header of every object, one small request each. --deep reads every object
to its end: its digest, every WAL record, and that each segment goes on where the one
before it ended, also from one timeline to the next. Only that finds cut or changed
content and bad WAL. With --resume an interrupted run goes on later: the file keeps
what was good, by size and time of the objects, and goes when the run is over.

A hole that cannot be filled can be acknowledged, with a reason. It is recorded in the
archive below acknowledged/, and named each time; a restore across it stops as before.

Exit code 0: the archive is whole, or every hole is acknowledged. 3: something is not in
order (the text names each problem). 1: nobody can say, the archive does not answer.`,
		Example: `  walbaton verify
  walbaton verify --deep --resume /var/tmp/verify.state
  walbaton verify --deep --since 36h
  walbaton verify --tree
  walbaton verify --svg timelines.svg
  walbaton verify --acknowledge 000000010000000000000007..00000001000000000000000A --reason 'both disks lost, ticket 12'
  walbaton verify --archive file:///backup --scope shop --json | jq '.problems[].name'`,
		Args: takes(cobra.NoArgs),
	}
	addSettings(c, readingSettings("stall_timeout", "log")...)
	c.Flags().BoolVar(&f.deep, "deep", false, "read every object to its end, and check every WAL record")
	c.Flags().StringVar(&f.since, "since", "", "look only at WAL from here on: a `place`, which is a time, how long ago (36h, 7d), an LSN, or a segment's name")
	c.Flags().StringVar(&f.resume, "resume", "", "`file` that keeps what a deep run found good; the same command goes on from there")
	c.Flags().Uint32Var(&f.timeline, "timeline", 0, "`timeline` that the line leads to (default: the newest that has WAL)")
	c.Flags().IntVar(&f.parallel, "parallel", 8, "objects that are read at the same time")
	c.Flags().BoolVar(&f.tree, "tree", false, "draw the timelines, with forks and holes")
	c.Flags().StringVar(&f.svg, "svg", "", "draw them into this `file`")
	c.Flags().StringVar(&f.acknowledge, "acknowledge", "", "record that this hole is known: a segment's or history's `name`, or NAME..NAME")
	c.Flags().StringVar(&f.reason, "reason", "", "`text` for those who read the acknowledgment later")
	c.Flags().Uint64Var(&f.systemID, "system-identifier", 0, "`number` of the cluster (default: that of the data directory, or the only one)")
	c.Flags().BoolVar(&f.json, "json", false, "print the report as JSON")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := configOf(c, w)
		if err != nil {
			return err
		}
		if err := f.check(c); err != nil {
			return usageError(c, err)
		}
		a, err := openArchive(c.Context(), cfg, f.systemID, cfg.logger(w))
		if err != nil {
			return err
		}
		if f.acknowledge != "" {
			return f.acknowledgeHole(c.Context(), a, cfg, w)
		}
		return f.run(c, a, w)
	}
	return c
}

// check refuses what does not fit together.
func (f verifyFlags) check(c *cobra.Command) error {
	given := func(names ...string) string {
		for _, n := range names {
			if c.Flags().Changed(n) {
				return n
			}
		}
		return ""
	}
	acknowledge := c.Flags().Changed("acknowledge")
	switch {
	case f.parallel < 1 || f.parallel > 1000:
		return fmt.Errorf("verify %d objects at the same time: give a number from 1 to 1000", f.parallel)
	case acknowledge && f.acknowledge == "":
		return errors.New("verify: --acknowledge needs the name of what is missing, as verify prints it")
	case acknowledge && strings.TrimSpace(f.reason) == "":
		return errors.New("verify: --acknowledge needs a --reason: it is recorded with it, for those who come to this hole in a restore")
	case acknowledge && given("deep", "since", "resume", "tree", "svg", "timeline", "parallel") != "":
		return fmt.Errorf("verify: --acknowledge records what is known, and --%s is for looking: one at a time", given("deep", "since", "resume", "tree", "svg", "timeline", "parallel"))
	case !acknowledge && given("reason") != "":
		return errors.New("verify: --reason belongs to --acknowledge")
	case f.resume != "" && !f.deep:
		return errors.New("verify: --resume is for --deep; without it a run takes one small request an object")
	case f.tree && f.json:
		return errors.New("verify: --tree draws for people; --json has the same in timelines and problems")
	}
	return nil
}

// run looks at the archive and says what was found.
func (f verifyFlags) run(c *cobra.Command, a *archiver.Archive, w world) (err error) {
	ctx := c.Context()
	o := archiver.AuditOptions{Deep: f.deep, Line: wal.Timeline(f.timeline), Workers: f.parallel}
	if o.Since, err = f.sinceLSN(c, a); err != nil {
		return err
	}
	if f.resume != "" {
		r, failed := openResume(f.resume, a.String(), time.Now())
		if failed != nil {
			return withCode(exitUsage, failed)
		}
		if r.old > 0 {
			_, _ = fmt.Fprintf(w.stderr, "goes on with the run of %s: up to %d segments were good (%s)\n", timeText(r.begun), 32*r.old, f.resume)
		}
		o.Memory = r
		defer func() {
			over := err == nil || exitCode(err) == exitFound
			if !over && ctx.Err() != nil {
				_, _ = fmt.Fprintf(w.stderr, "what was good is kept in %s: the same command goes on from there\n", f.resume)
			}
			if failed := r.end(over); failed != nil && over {
				_, _ = fmt.Fprintf(w.stderr, "resume: %v\n", bare(failed)) // the report counts
			}
		}()
	}
	bar := newProgress(w.stderr, "verify")
	o.Progress = bar.show
	rep, err := a.Audit(ctx, o)
	bar.end()
	if err != nil {
		return withHint(err, "nothing is said about the archive; see that it can be reached, and try again")
	}
	if f.timeline != 0 && !slices.ContainsFunc(rep.Timelines, func(t archiver.AuditTimeline) bool { return t.Timeline == wal.Timeline(f.timeline) }) {
		return withHint(fmt.Errorf("verify %s: it has nothing of timeline %d", rep.Archive, f.timeline), "walbaton list shows the timelines it has")
	}
	return f.print(w, rep)
}

func (f verifyFlags) print(w world, rep *archiver.Audit) (err error) {
	if f.svg != "" {
		if err := writePicture(f.svg, draw(rep).svg()); err != nil {
			return err
		}
	}
	switch {
	case f.json:
		e := json.NewEncoder(w.stdout)
		e.SetIndent("", "  ")
		err = e.Encode(rep)
	case f.tree:
		err = printAudit(w.stdout, rep)
		if err == nil {
			_, err = io.WriteString(w.stdout, "\n"+draw(rep).text(pensFor(w.getenv), treeWidth(w)))
		}
	default:
		err = printAudit(w.stdout, rep)
	}
	if err == nil && rep.Open() > 0 {
		err = withCode(exitFound, fmt.Errorf("verify %s: %s found", rep.Archive, counted(rep.Open(), "problem")))
	}
	return err
}

// writePicture replaces a file as a whole.
func writePicture(name, text string) error {
	root, err := os.OpenRoot(filepath.Dir(name))
	if err != nil {
		return withHint(fmt.Errorf("draw: %w", bare(err)), "give a file in a folder that you may write to")
	}
	defer root.Close()
	if err := durable.Replace(root, filepath.Base(name), strings.NewReader(text), 0o644); err != nil {
		return withHint(fmt.Errorf("draw into %s: %w", name, err), "give a file in a folder that you may write to")
	}
	return nil
}

// treeWidth is how many letters the drawn part of a row has.
func treeWidth(w world) int {
	if f, ok := w.stdout.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
			return min(max(int(size.Col)-60, 30), 120)
		}
	}
	return 60
}

// sinceLSN is where --since begins.
func (f verifyFlags) sinceLSN(c *cobra.Command, a *archiver.Archive) (wal.LSN, error) {
	if !c.Flags().Changed("since") {
		return 0, nil
	}
	s, err := parseSince(f.since, a.SegmentSize(), time.Now())
	if err != nil {
		return 0, withCode(exitUsage, fmt.Errorf("--since: %w", err))
	}
	if s.at.IsZero() {
		return s.lsn, nil
	}
	lsn, err := a.StartOf(c.Context(), s.at)
	if err != nil {
		return 0, withHint(err, "nothing is said about the archive; see that it can be reached, and try again")
	}
	return lsn, nil
}

const holeNames = "a hole is called as verify prints it: 000000010000000000000007, 000000010000000000000007..0000000100000000000000A0 or 00000002.history"

// acknowledgeHole records what somebody knows of a hole.
func (f verifyFlags) acknowledgeHole(ctx context.Context, a *archiver.Archive, cfg Config, w world) error {
	from, to, ranged := strings.Cut(f.acknowledge, "..")
	if !ranged {
		to = from
	}
	first, err := wal.ParseName(from, a.SegmentSize())
	last, err2 := wal.ParseName(to, a.SegmentSize())
	if err := cmp.Or(err, err2); err != nil {
		return withHint(withCode(exitUsage, fmt.Errorf("acknowledge: %w", err)), holeNames)
	}
	via := cfg.Name
	if via == "" {
		via, _ = os.Hostname() // without one nobody is named
	}
	k := archiver.Acknowledgment{Reason: f.reason, By: userName(w), Via: via, At: time.Now().UTC().Truncate(time.Second)}
	if err := store.Prove(ctx, a.Store(), path.Join(a.Identity().Scope, "probe", via), 1<<10); err != nil {
		return withHint(err, "nothing was recorded; it takes the right to write to the archive, and a store that keeps the first writer's object")
	}
	got, err := a.Acknowledge(ctx, first, last, k)
	switch {
	case errors.Is(err, archiver.ErrNoRange):
		return withHint(withCode(exitUsage, err), holeNames)
	case errors.Is(err, archiver.ErrNoHole):
		return withHint(err, "walbaton verify shows what is missing; only that can be acknowledged, as a whole or in part")
	case err != nil:
		return withHint(err, "nothing was recorded; it takes the right to write to the archive")
	}
	if f.json {
		e := json.NewEncoder(w.stdout)
		e.SetIndent("", "  ")
		return e.Encode(got)
	}
	text := "recorded: "
	if got.By != k.By || !got.At.Equal(k.At) || got.Reason != strings.Join(strings.Fields(k.Reason), " ") {
		text = "it was acknowledged before, and that stays: "
	}
	_, err = fmt.Fprintf(w.stdout, "%s%s\n  a restore across it stops as before; verify goes on to name it\n", text, acknowledgedText(got))
	return err
}
