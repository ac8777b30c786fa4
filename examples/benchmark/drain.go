package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/walbaton/walbaton/sidecar/drill"
)

// drain is one run: a sidecar ships all segments that wait into an empty archive.
type drain struct {
	Place, Codec string
	Segments     int
	Seconds      float64 // from the start of the sidecar's process until the archive has the last segment
	FirstPut     float64 // until it has the first one, in seconds
	User, System float64 // CPU time in seconds of the sidecar
	Store        float64 // CPU time in seconds of MinIO
	PeakRSS      int64   // bytes: VmHWM
	PeakAnon     int64   // bytes: the largest RssAnon of all samples
	Stored       int64   // bytes of the objects
	Load         load
	Command      string
}

// drains runs them alternating, so that a busy minute does not fall on one place alone. After each drain to files push
// is measured, while the sidecar still runs.
func (b *bench) drains(ctx context.Context) error {
	wal, err := b.prepared(ctx)
	if err != nil {
		return err
	}
	type setting struct {
		place drill.Place
		codec string
	}
	var settings []setting
	for range b.rounds {
		settings = append(settings, setting{drill.Files, "zstd"}, setting{drill.MinIO, "zstd"})
	}
	for _, codec := range []string{"lz4", "none"} {
		settings = append(settings, setting{drill.Files, codec}, setting{drill.MinIO, codec})
	}
	var all []drain
	var pushes []push
	for _, s := range settings {
		var then func(*sidecar, []string) error
		if s.place == drill.Files && s.codec == "zstd" && b.calls > 0 {
			then = func(car *sidecar, names []string) error {
				p, err := car.push(ctx, wal, names, b.calls)
				pushes = append(pushes, p)
				return err
			}
		}
		d, err := wal.drain(ctx, s.place, s.codec, then)
		if err != nil {
			return fmt.Errorf("drain to %s, %s: %w", s.place, s.codec, err)
		}
		b.say("%s, %s: %d segments in %.1f s, CPU %.1f s, %d MB anonymous; others used %.2f cores",
			d.Place, d.Codec, d.Segments, d.Seconds, d.User+d.System, d.PeakAnon>>20, d.Load.Others)
		all = append(all, d)
		if err := b.save(ctx, "drain", all); err != nil {
			return err
		}
		if then == nil {
			continue
		}
		p := pushes[len(pushes)-1]
		b.say("push p50 %.2f ms, p99 %.2f ms; /bin/true %.2f, %.2f", p50(p.Push), p99(p.Push), p50(p.True), p99(p.True))
		if err := b.save(ctx, "push", pushes); err != nil {
			return err
		}
	}
	return nil
}

// drain is one run. Archive and sidecar are new, and gone at the end; before that, then is called unless it is nil.
func (s *segments) drain(ctx context.Context, place drill.Place, codec string, then func(*sidecar, []string) error) (d drain, err error) {
	names, err := s.waiting()
	if err != nil {
		return d, err
	}
	car, err := s.newSidecar(ctx, place, codec)
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, car.close()) }()
	if err := s.warm(ctx, names); err != nil {
		return d, err
	}
	d = drain{Place: string(place), Codec: codec, Segments: len(names), Command: strings.Join(car.cmd.Args, " ")}
	begun, m := car.storeCPU(), startMeter()
	if err := car.start(); err != nil {
		return d, err
	}
	if err := car.watch(ctx, &d); err != nil {
		return d, err
	}
	pid := car.cmd.Process.Pid
	if d.User, d.System, err = processCPU(pid); err != nil {
		return d, err
	}
	d.Store = car.storeCPU() - begun
	d.Seconds, d.Load = m.stop(d.User + d.System + d.Store)
	d.PeakRSS = kilobytes(fmt.Sprintf("/proc/%d/status", pid), "VmHWM") << 10
	if d.Stored, err = car.check(ctx, names); err != nil || then == nil {
		return d, err
	}
	return d, then(car, names)
}

// watch samples memory, and asks the sidecar ten times a second how much it has put, until that is all.
func (car *sidecar) watch(ctx context.Context, d *drain) error {
	status := fmt.Sprintf("/proc/%d/status", car.cmd.Process.Pid)
	begin := time.Now()
	return until(ctx, 10*time.Minute, 100*time.Millisecond, "the archive has every segment", func() (bool, error) {
		d.PeakAnon = max(d.PeakAnon, kilobytes(status, "RssAnon")<<10)
		select {
		case <-car.ended:
			log, err := os.ReadFile(car.log())
			return false, errors.Join(fmt.Errorf("the sidecar has ended: %s", log), err)
		default:
		}
		put, err := car.put(ctx)
		if err != nil {
			return false, nil // it does not listen yet
		}
		if put > 0 && d.FirstPut == 0 {
			d.FirstPut = time.Since(begin).Seconds()
		}
		return put >= d.Segments, nil
	})
}

// sidecar is one with an archive of its own, for a PostgreSQL without Patroni and with the default settings.
type sidecar struct {
	archive *drill.Cluster // only its archive and its folder are used
	address string         // of its metrics
	cmd     *exec.Cmd
	ended   chan struct{} // closed when its process has ended
}

func (s *segments) newSidecar(ctx context.Context, place drill.Place, codec string) (*sidecar, error) {
	archive, err := drill.New(ctx, drill.Options{Place: place, Binaries: filepath.Dir(s.c.Bin("walbaton"))})
	if err != nil {
		return nil, err
	}
	car := &sidecar{archive: archive, ended: make(chan struct{})}
	if err := archive.StartStore(ctx); err != nil {
		return nil, errors.Join(err, car.close())
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, car.close())
	}
	car.address = l.Addr().String()
	l.Close()
	args := []string{"sidecar", "--dcs-kind", "static", "--scope", "bench", "--name", "pg1", "--archive", archive.Store.URL(),
		"--postgres-data-dir", s.data, "--socket", car.socket(), "--listen", car.address}
	if codec != "zstd" {
		args = append(args, "--archive-codec", codec)
	}
	car.cmd = archive.Command(context.WithoutCancel(ctx), "walbaton", args...)
	car.cmd.Env = append(car.cmd.Env, "WALBATON_POSTGRES_DSN="+s.dsn())
	return car, nil
}

func (car *sidecar) start() error {
	log, err := os.Create(car.log())
	if err != nil {
		return err
	}
	defer log.Close()
	car.cmd.Stdout, car.cmd.Stderr = log, log
	if err := car.cmd.Start(); err != nil {
		return err
	}
	go func() {
		defer close(car.ended)
		car.cmd.Wait() // it is asked to end, or killed
	}()
	return nil
}

// close ends the sidecar, as systemd would, and removes its archive.
func (car *sidecar) close() error { return errors.Join(car.end(), car.archive.Stop()) }

// end ends it, and leaves its archive.
func (car *sidecar) end() error {
	if car.cmd == nil || car.cmd.Process == nil {
		return nil
	}
	err := car.cmd.Process.Signal(syscall.SIGTERM)
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	select {
	case <-car.ended:
	case <-time.After(10 * time.Second): // it is killed with all that works below its folder
	}
	return err
}

func (car *sidecar) socket() string { return car.archive.Nodes[0].Socket() }
func (car *sidecar) log() string    { return filepath.Join(car.archive.Dir, "sidecar.log") }

// put is how many segments the archive took.
func (car *sidecar) put(ctx context.Context) (int, error) {
	values, err := scrape(ctx, car.address)
	return int(values[`walbaton_files_put_total{kind="segment",result="stored"}`]), err
}

// storeCPU is the CPU time in seconds of MinIO; a folder has none.
func (car *sidecar) storeCPU() (seconds float64) {
	for _, pid := range drill.Below(filepath.Join(car.archive.Dir, "store")) {
		user, system, err := processCPU(pid)
		if err == nil {
			seconds += user + system
		}
	}
	return seconds
}

// check looks into the archive for every name, and returns the size of all of them.
func (car *sidecar) check(ctx context.Context, names []string) (size int64, err error) {
	objects, err := car.archive.Store.Objects(ctx)
	if err != nil {
		return 0, err
	}
	found := 0
	for _, o := range objects {
		if _, ok := slices.BinarySearch(names, filepath.Base(o.Key)); ok {
			found++
			size += o.Size
		}
	}
	if found != len(names) {
		return 0, fmt.Errorf("the archive has %d of %d segments", found, len(names))
	}
	return size, nil
}
