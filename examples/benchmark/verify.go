package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/store/s3"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
	"github.com/walbaton/walbaton/sidecar/drill"
)

// verified is one run of walbaton verify over an archive on MinIO.
type verified struct {
	Command  string // without the archive
	Segments int
	Stored   int64 // bytes of the objects
	Seconds  float64
	User     float64 // CPU time in seconds of the program
	System   float64
	Store    float64            // and of MinIO
	PeakRSS  int64              // bytes: the last sample of VmHWM
	PeakAnon int64              // bytes: the largest RssAnon of all samples
	Requests map[string]float64 // that MinIO counted, by its name for them
	Load     load
}

// verifySize is the size of a segment: the smallest that PostgreSQL knows, so that there are many objects for their bytes.
const verifySize = wal.MinSegmentSize

const verifySystemID = 7710542482846769188

// verifies makes an archive of many small segments on MinIO, and looks at it.
func (b *bench) verifies(ctx context.Context) (err error) {
	c, err := drill.New(ctx, drill.Options{Place: drill.MinIO})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	if err := c.StartStore(ctx); err != nil {
		return err
	}
	b.say("%d segments of 1 MB are made and stored", b.small)
	stored, err := fillSmall(ctx, c.Store, b.small)
	if err != nil {
		return err
	}
	var all []verified
	for range b.rounds {
		for _, args := range []string{"verify", "verify --deep", "locate --time " + smallMiddle(b.small).Format(time.RFC3339)} {
			v, err := runVerify(ctx, c, args)
			if err != nil {
				return fmt.Errorf("%s: %w", args, err)
			}
			v.Segments, v.Stored = b.small, stored
			b.say("%s: %.1f s, CPU %.1f s, %d MB anonymous, %d MB RSS; %v", args, v.Seconds, v.User+v.System, v.PeakAnon>>20, v.PeakRSS>>20, v.Requests)
			all = append(all, v)
			if err := b.save(ctx, "verify", all); err != nil {
				return err
			}
		}
	}
	return nil
}

// smallBegin is the time of the first commit; a second passes with each segment.
var smallBegin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func smallMiddle(segments int) time.Time {
	return smallBegin.Add(time.Duration(segments/2) * time.Second)
}

// fillSmall makes WAL that compresses about as well as a database's, and stores it as the sidecar does. It gives the bytes of all objects.
func fillSmall(ctx context.Context, place drill.Store, segments int) (stored int64, err error) {
	env := map[string]string{}
	for _, e := range place.Env() {
		name, value, _ := strings.Cut(e, "=")
		env[name] = value
	}
	s, err := s3.Open(ctx, place.URL()+"&region="+env["AWS_REGION"], s3.Options{AccessKey: env["AWS_ACCESS_KEY_ID"], SecretKey: env["AWS_SECRET_ACCESS_KEY"]})
	if err != nil {
		return 0, err
	}
	first := wal.Segment{Timeline: 1, Size: verifySize, No: 1}
	id := archiver.Identity{Scope: "bench", SystemID: verifySystemID, SegmentSize: verifySize, Member: "pg1", Floor: archiver.Floor{Timeline: 1, LSN: first.Start()}}
	if err := archiver.CreateArchive(ctx, s, id); err != nil {
		return 0, err
	}
	a, err := archiver.OpenArchive(ctx, s, "bench", verifySystemID)
	if err != nil {
		return 0, err
	}
	sealer, err := seal.New(seal.Zstd)
	if err != nil {
		return 0, err
	}
	w, noise := waltest.New(verifySystemID, verifySize), rand.New(rand.NewPCG(1, 2))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	sizes := make([]int64, segments)
	for i := range segments {
		if gctx.Err() != nil {
			break
		}
		at := w.Current()
		w.Commit(smallBegin.Add(time.Duration(i) * time.Second))
		for w.Current() == at {
			w.Raw(0, 0x20, row(noise))
		}
		plain := w.Segment(at)
		w.Forget(w.Current())
		g.Go(func() (err error) {
			sizes[i], err = putSmall(gctx, a, sealer, at, plain)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	for _, n := range sizes {
		stored += n
	}
	return stored, nil
}

func putSmall(ctx context.Context, a *archiver.Archive, sealer *seal.Sealer, s wal.Segment, plain []byte) (int64, error) {
	rep, err := wal.Check(bytes.NewReader(plain), s, verifySystemID)
	if err != nil || rep.State != wal.Complete {
		return 0, fmt.Errorf("%v is %v (%s): %w", s, rep.State, rep.Why, err)
	}
	packed, err := sealer.Pack(bytes.NewReader(plain), int64(len(plain)))
	if err != nil {
		return 0, err
	}
	defer packed.Close()
	sealed, err := packed.Seal(seal.Header{Name: s.String(), SystemID: verifySystemID, Member: "pg1", Term: 1, FirstCommit: rep.FirstCommit, LastCommit: rep.LastCommit})
	if err != nil {
		return 0, err
	}
	defer sealed.Close()
	return sealed.Size(), a.Put(ctx, a.Key(wal.SegmentName(s)), sealed)
}

// row is the body of an XLOG_NOOP record: a quarter of it is noise, and the rest compresses well.
func row(noise *rand.Rand) []byte {
	n := 200 + noise.IntN(3000)
	b := append([]byte{254}, binary.LittleEndian.AppendUint32(nil, uint32(n))...)
	for len(b) < 5+n {
		b = binary.LittleEndian.AppendUint64(b, noise.Uint64())
		b = append(b, "a column that has the same  "[:24]...)
	}
	return b[:5+n]
}

// runVerify runs one command to its end.
func runVerify(ctx context.Context, c *drill.Cluster, args string) (v verified, err error) {
	v.Command = "walbaton " + args
	before, err := minioRequests(ctx, c.Store)
	if err != nil {
		return v, err
	}
	cmd := c.Command(ctx, "walbaton", append(strings.Fields(args), "--archive", c.Store.URL(), "--scope", "bench")...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	store := storeCPU(c)
	m := startMeter()
	if err := cmd.Start(); err != nil {
		return v, err
	}
	done := make(chan struct{})
	sampled := make(chan [2]int64)
	go func() {
		status := fmt.Sprintf("/proc/%d/status", cmd.Process.Pid)
		var peak [2]int64
		for {
			select {
			case <-done:
				sampled <- peak
				return
			case <-time.After(20 * time.Millisecond):
				peak = [2]int64{max(peak[0], kilobytes(status, "RssAnon")<<10), max(peak[1], kilobytes(status, "VmHWM")<<10)}
			}
		}
	}()
	err = cmd.Wait()
	close(done)
	peak := <-sampled
	v.PeakAnon, v.PeakRSS = peak[0], peak[1]
	if err != nil {
		return v, fmt.Errorf("%w: %s", err, out.String())
	}
	v.User, v.System = cmd.ProcessState.UserTime().Seconds(), cmd.ProcessState.SystemTime().Seconds()
	v.Store = storeCPU(c) - store
	v.Seconds, v.Load = m.stop(v.User + v.System + v.Store)
	after, err := minioRequests(ctx, c.Store)
	v.Requests = map[string]float64{}
	for name, n := range after {
		if more := n - before[name]; more > 0 {
			v.Requests[name] = more
		}
	}
	return v, err
}

// minioRequests asks MinIO for its counters, when they have settled: it gathers them every ten seconds.
func minioRequests(ctx context.Context, place drill.Store) (map[string]float64, error) {
	u, err := url.Parse(place.URL())
	if err != nil {
		return nil, err
	}
	select {
	case <-time.After(25 * time.Second):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.Query().Get("endpoint")+"/minio/v2/metrics/cluster", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	all := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		labels, ok := strings.CutPrefix(line, "minio_s3_requests_total{")
		_, api, found := strings.Cut(labels, `api="`)
		name, _, _ := strings.Cut(api, `"`)
		var n float64
		if _, err := fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &n); ok && found && err == nil {
			all[name] += n
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("MinIO's metrics have no requests: %.200s", text)
	}
	return all, nil
}

// verifyGroup is the runs of one command.
type verifyGroup struct {
	Command string
	Runs    []verified
}

func verifyGroups(all []verified) (gs []verifyGroup) {
	for _, runs := range gather(all, func(v verified) string { return v.Command }) {
		gs = append(gs, verifyGroup{runs[0].Command, runs})
	}
	return gs
}

func (g verifyGroup) Seconds() []float64 {
	return values(g.Runs, func(v verified) float64 { return v.Seconds })
}
func (g verifyGroup) CPU() []float64 {
	return values(g.Runs, func(v verified) float64 { return v.User + v.System })
}
func (g verifyGroup) Store() []float64 {
	return values(g.Runs, func(v verified) float64 { return v.Store })
}
func (g verifyGroup) Anon() []float64 {
	return values(g.Runs, func(v verified) float64 { return float64(v.PeakAnon >> 20) })
}
func (g verifyGroup) RSS() []float64 {
	return values(g.Runs, func(v verified) float64 { return float64(v.PeakRSS >> 20) })
}

// Asked is what MinIO was asked in the first run.
func (g verifyGroup) Asked() string { return asked(g.Runs[0].Requests, 0) }
