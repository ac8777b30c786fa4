package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// drain is one run: a tool archives all segments that wait into an empty archive.
type drain struct {
	tool
	Segments     int
	Plain        int64   // bytes of the segments
	Seconds      float64 // from the start of the first process until the last archive_command has succeeded
	Failed       int     // calls of archive_command
	User, System float64 // CPU time in seconds of all processes of the tool, its archive_command included
	Whole        bool    `json:",omitempty"` // no control group could be made: User is that of the whole machine but the store and the driver
	Store        float64 // CPU time in seconds of MinIO
	PeakAnon     int64   // bytes: the largest RssAnon of all of them together, of samples
	Stored       int64   // bytes in the archive
	Load         load
	Command      string   // archive_command
	Settings     []string // what else was set
}

// drains runs the tools in turn, round after round, so that a busy minute does not fall on one tool alone.
func (b *bench) drains(ctx context.Context) error {
	wal, err := b.prepared(ctx)
	if err != nil {
		return err
	}
	var all []drain
	for round := range b.rounds {
		for _, t := range tools() {
			if t.once && round > 0 {
				continue
			}
			d, err := wal.drain(ctx, t)
			if err != nil {
				return fmt.Errorf("drain with %s to %s, %s: %w", t.Tool, t.Place, t.Codec, err)
			}
			b.say("%s: %d segments in %.1f s, %.1f a second, CPU %.1f ms each, %d MB anonymous, %.0f %% stored; others used %.2f cores",
				t, d.Segments, d.Seconds, d.rate(), d.cpu(), d.PeakAnon>>20, 100*float64(d.Stored)/float64(d.Plain), d.Load.Others)
			all = append(all, d)
			if err := b.save(ctx, "drain", all); err != nil {
				return err
			}
		}
	}
	return nil
}

// drain is one run. Tool and archive are new, and gone at the end.
func (s *segments) drain(ctx context.Context, t tool) (d drain, err error) {
	names, err := s.waiting()
	if err != nil {
		return d, err
	}
	if t.few > 0 {
		names = names[:min(t.few, len(names))]
	}
	in, err := s.install(ctx, t)
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	if err := s.warm(ctx, names); err != nil {
		return d, err
	}
	d = drain{tool: t, Segments: len(names), Plain: int64(len(names)) << 24, Command: in.said(in.command)}
	for _, text := range in.settings {
		d.Settings = append(d.Settings, in.said(text))
	}
	grown, err := newTree(in.archive.Dir, func() float64 { return storeCPU(in.archive) })
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, grown.close()) }()
	d.Whole = grown.group == ""
	err = s.measure(ctx, in, grown, names, &d)
	if err == nil {
		d.Stored, err = stored(ctx, in.archive, names)
	}
	return d, err
}

// measure archives the segments. The CPU time is read when every process of the tool has ended, so what it does after its last answer counts.
func (s *segments) measure(ctx context.Context, in *installed, grown *tree, names []string, d *drain) (err error) {
	peak := grown.peak()
	store, ended, m := storeCPU(in.archive), rusage(syscall.RUSAGE_CHILDREN), startMeter()
	if in.car != nil {
		grown.plant(in.car.cmd)
		err = in.car.start()
	}
	if err == nil {
		d.Failed, err = s.archive(ctx, in, grown, names)
	}
	d.Seconds = time.Since(m.begin).Seconds()
	if in.car != nil {
		err = errors.Join(err, in.car.end())
	}
	if err == nil {
		err = grown.wither(ctx)
	}
	d.PeakAnon = peak()
	if err != nil {
		return err
	}
	if d.User, d.System, err = grown.cpu(); err != nil {
		return err
	}
	d.Store = storeCPU(in.archive) - store
	_, d.Load = m.stop(d.User + d.System + d.Store - (rusage(syscall.RUSAGE_CHILDREN) - ended)) // the meter knows our children
	return nil
}

// pause is what the driver waits after a call that failed. PostgreSQL waits a second; the one call that fails is walbaton's first, because the
// sidecar begins at that moment, which it does not do in front of a real archiver.
const pause = 20 * time.Millisecond

// archive calls archive_command for each segment as PostgreSQL's archiver does: oldest first, one call after the other, again while it fails, as
// user postgres, through a shell, in the data directory.
func (s *segments) archive(ctx context.Context, in *installed, grown *tree, names []string) (failed int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	for _, name := range names {
		for {
			cmd := in.call(ctx, s.data, name)
			grown.plant(cmd)
			var said strings.Builder
			cmd.Stdout, cmd.Stderr = &said, &said
			if err = cmd.Run(); err == nil {
				break
			}
			failed++
			select {
			case <-ctx.Done():
				return failed, fmt.Errorf("archive %s: %w: %s", name, err, said.String())
			case <-time.After(pause):
			}
		}
	}
	return failed, nil
}

// call is archive_command for one segment.
func (in *installed) call(ctx context.Context, data, name string) *exec.Cmd {
	command := strings.NewReplacer("%p", "pg_wal/"+name, "%f", name).Replace(in.command)
	cmd := in.archive.Command(ctx, "sh", "-c", command)
	cmd.Dir = data
	return cmd
}

// said is a text with the run's folder under the same name in every run.
func (in *installed) said(text string) string {
	return strings.ReplaceAll(text, in.archive.Dir, "/bench")
}

func (d drain) rate() float64 { return float64(d.Segments) / d.Seconds }
func (d drain) cpu() float64  { return 1000 * (d.User + d.System) / float64(d.Segments) } // milliseconds a segment

// String names a tool with its settings, in a few words.
func (t tool) String() string {
	text := t.Tool + ", " + t.Codec
	if t.Level != 0 {
		text += fmt.Sprintf(" level %d", t.Level)
	}
	if t.Workers != 0 {
		text += fmt.Sprintf(", %d at a time", t.Workers)
	}
	if t.Place != "files" {
		text += ", to " + string(t.Place)
	}
	return text
}
