package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/walbaton/walbaton/sidecar/drill"
)

// The tools that archive.
const (
	walbaton = "walbaton"
	pgBack   = "pgBackRest"
	walG     = "WAL-G"
	barman   = "Barman"
	copying  = "cp"
	floor    = "dd" // cp that syncs: what any tool without compression has to do
)

// The programs that need not be there. barmanCloud is the one of Barman's that needs no ssh.
const (
	walGProgram = "wal-g"
	barmanCloud = "barman-cloud-wal-archive"
)

// tool is one of them with its settings.
type tool struct {
	Tool    string
	Place   drill.Place
	Codec   string // "lz4", "zstd" or "none"
	Level   int    // of the codec; 0 is the tool's default
	Workers int    // segments at the same time; 0 when the tool has no such setting
	once    bool   // one run is enough, however many rounds there are
	few     int    // it is so slow that this many segments are enough
}

// tools are what is drained, in the order of a round. What the goals and the comparison of each at its best need is in every round.
func tools() []tool {
	each := func(workers int, codec string, once bool) []tool {
		return []tool{
			{Tool: walbaton, Place: drill.Files, Codec: codec, Workers: workers, once: once},
			{Tool: pgBack, Place: drill.Files, Codec: codec, Workers: workers, once: once},
		}
	}
	all := []tool{
		{Tool: floor, Place: drill.Files, Codec: "none"},
		{Tool: walbaton, Place: drill.Files, Codec: "none", Workers: 4},
		{Tool: copying, Place: drill.Files, Codec: "none"},
		{Tool: walbaton, Place: drill.Files, Codec: "zstd", Workers: 4}, // as it is by default
	}
	for _, codec := range []string{"lz4", "zstd", "none"} {
		all = append(all, each(2, codec, false)...)
	}
	all = append(all, tool{Tool: pgBack, Place: drill.Files, Codec: "zstd", Level: 1, Workers: 2})
	for _, codec := range []string{"lz4", "zstd", "none"} {
		all = append(all, each(1, codec, true)...)
	}
	all = append(all, each(4, "lz4", true)...)
	for _, codec := range []string{"zstd", "none"} {
		all = append(all, tool{Tool: pgBack, Place: drill.Files, Codec: codec, Workers: 4, once: true})
	}
	for _, codec := range []string{"lz4", "zstd", "none"} {
		all = append(all, tool{Tool: walbaton, Place: drill.MinIO, Codec: codec, Workers: 4, once: true})
	}
	if _, err := exec.LookPath(walGProgram); err == nil {
		for _, codec := range []string{"lz4", "zstd"} {
			all = append(all, tool{Tool: walG, Place: drill.Files, Codec: codec, Workers: 16}) // as it is by default
		}
		for _, workers := range []int{1, 2, 4} {
			all = append(all, tool{Tool: walG, Place: drill.Files, Codec: "lz4", Workers: workers, once: true})
		}
	}
	if _, err := exec.LookPath(barmanCloud); err == nil {
		all = append(all, tool{Tool: barman, Place: drill.MinIO, Codec: "none", once: true, few: 40})
	}
	return all
}

// installed is a tool that is set up beside an empty archive.
type installed struct {
	archive  *drill.Cluster // only its archive and its folder are used
	command  string         // archive_command
	settings []string       // what was set elsewhere
	car      *sidecar       // walbaton's, not started; nil
	back     *backRest      // nil
	litter   string         // a folder in pg_wal that is not to stay there; ""
}

// install sets a tool up. Its archive is new.
func (s *segments) install(ctx context.Context, t tool) (*installed, error) {
	if t.Tool == walbaton {
		car, err := s.newSidecar(ctx, t.Place, t.Codec, "--workers", fmt.Sprint(t.Workers))
		if err != nil {
			return nil, err
		}
		return &installed{archive: car.archive, car: car, command: car.archive.Bin("walbaton-wal") + " push --socket " + car.socket() + " %p",
			settings: []string{strings.Join(car.cmd.Args, " ")}}, nil
	}
	archive, err := s.newArchive(ctx, t.Place)
	if err != nil {
		return nil, err
	}
	in := &installed{archive: archive}
	if err := in.setUp(ctx, t, s.data); err != nil {
		return nil, errors.Join(err, in.close())
	}
	return in, nil
}

// setUp writes what the tool needs, and says what archive_command is, for a data directory.
func (in *installed) setUp(ctx context.Context, t tool, data string) error {
	at, err := url.Parse(in.archive.Store.URL())
	if err != nil {
		return err
	}
	program := "" // where it is: PostgreSQL's PATH need not have it
	if name := map[string]string{walG: walGProgram, barman: barmanCloud}[t.Tool]; name != "" {
		if program, err = exec.LookPath(name); err != nil {
			return err
		}
	}
	switch t.Tool {
	case pgBack:
		codec := map[string]string{"zstd": "zst"}
		in.settings = []string{"compress-type=" + cmp.Or(codec[t.Codec], t.Codec), fmt.Sprintf("process-max=%d", t.Workers)}
		if t.Level != 0 {
			in.settings = append(in.settings, fmt.Sprintf("compress-level=%d", t.Level))
		}
		if in.back, err = newBackRest(ctx, in.archive, data, at.Path, in.settings...); err != nil {
			return err
		}
		in.settings = append(in.settings, "archive-async=y")
		in.command = in.back.archiveCommand()
		return in.back.create(ctx)
	case walG:
		in.litter = filepath.Join(data, "pg_wal", "walg_data") // where it notes what it has uploaded ahead
		in.command = fmt.Sprintf("env WALG_FILE_PREFIX=%s WALG_COMPRESSION_METHOD=%s WALG_UPLOAD_CONCURRENCY=%d PGDATA=%s %s wal-push %%p", at.Path, t.Codec, t.Workers, data, program)
	case barman:
		in.command = fmt.Sprintf("%s --endpoint-url %s s3://%s%s bench %%p", program, at.Query().Get("endpoint"), at.Host, at.Path)
	case copying:
		in.command = fmt.Sprintf("test ! -f %[1]s/%%f && cp %%p %[1]s/%%f", at.Path)
	case floor:
		in.command = fmt.Sprintf("dd if=%%p of=%s/%%f bs=1M conv=fsync status=none", at.Path)
	default:
		return fmt.Errorf("%q is no tool", t.Tool)
	}
	return nil
}

// close ends what is left of the tool, and removes its archive.
func (in *installed) close() error {
	if in.car != nil {
		return in.car.close()
	}
	var err error
	if in.back != nil {
		err = in.back.end()
	}
	err = errors.Join(err, in.archive.Stop())
	if in.litter != "" {
		err = errors.Join(err, os.RemoveAll(in.litter))
	}
	return err
}

// newArchive makes an empty one.
func (s *segments) newArchive(ctx context.Context, place drill.Place) (*drill.Cluster, error) {
	archive, err := drill.New(ctx, drill.Options{Place: place, Binaries: filepath.Dir(s.c.Bin("walbaton"))})
	if err != nil {
		return nil, err
	}
	if err := archive.StartStore(ctx); err != nil {
		return nil, errors.Join(err, archive.Stop())
	}
	return archive, nil
}

// storeCPU is the CPU time in seconds of an archive's MinIO so far; a folder has none.
func storeCPU(c *drill.Cluster) (seconds float64) {
	for _, pid := range drill.Below(filepath.Join(c.Dir, "store")) {
		user, system, err := processCPU(pid)
		if err == nil {
			seconds += user + system
		}
	}
	return seconds
}

// stored looks into an archive for every segment, and returns the size of all that it has of them. Each tool gives its objects names that begin
// with the segment's.
func stored(ctx context.Context, c *drill.Cluster, names []string) (size int64, err error) {
	objects, err := c.Store.Objects(ctx)
	if err != nil {
		return 0, err
	}
	found := map[string]bool{}
	for _, o := range objects {
		name := filepath.Base(o.Key)
		if name = name[:min(24, len(name))]; slices.Contains(names, name) && o.Size > 0 {
			found[name] = true
			size += o.Size
		}
	}
	if len(found) != len(names) {
		return 0, fmt.Errorf("the archive has %d of %d segments", len(found), len(names))
	}
	return size, nil
}
