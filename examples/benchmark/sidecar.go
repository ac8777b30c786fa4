package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/walbaton/walbaton/sidecar/drill"
)

// sidecar is one with an archive of its own, for a PostgreSQL without Patroni and with the default settings.
type sidecar struct {
	archive *drill.Cluster // only its archive and its folder are used
	address string         // of its metrics
	cmd     *exec.Cmd
	ended   chan struct{} // closed when its process has ended
}

// newSidecar prepares one, with more flags than these few. It is not started.
func (s *segments) newSidecar(ctx context.Context, place drill.Place, codec string, flags ...string) (*sidecar, error) {
	archive, err := s.newArchive(ctx, place)
	if err != nil {
		return nil, err
	}
	car := &sidecar{archive: archive, ended: make(chan struct{})}
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
	args = append(args, flags...)
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

// all waits until the archive has that many segments.
func (car *sidecar) all(ctx context.Context, segments int) error {
	return until(ctx, 10*time.Minute, 100*time.Millisecond, "the archive has every segment", func() (bool, error) {
		put, err := car.put(ctx)
		return err == nil && put >= segments, car.runs() // it may not listen yet
	})
}

// runs is an error when the sidecar has ended.
func (car *sidecar) runs() error {
	select {
	case <-car.ended:
		log, err := os.ReadFile(car.log())
		return errors.Join(fmt.Errorf("the sidecar has ended: %s", log), err)
	default:
		return nil
	}
}

// put is how many segments the archive took.
func (car *sidecar) put(ctx context.Context) (int, error) {
	values, err := scrape(ctx, car.address)
	return int(values[`walbaton_files_put_total{kind="segment",result="stored"}`]), err
}
