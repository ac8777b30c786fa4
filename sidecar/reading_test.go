package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/store/file"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
)

const testSystemID = 7710542482846769188

// writeArchive makes a file archive of scope shop with two timelines, and gives its folder and the WAL.
func writeArchive(t *testing.T, systemID uint64) (string, *waltest.Writer) {
	t.Helper()
	one := waltest.New(systemID, 1<<20)
	one.Commit(time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC))
	one.Fill(3)
	one.Record(100_000)
	two := one.Fork(2)
	two.Fill(2)
	two.Commit(time.Date(2026, 11, 21, 9, 30, 0, 0, time.UTC))
	two.Fill(1)
	dir := t.TempDir()
	s, err := file.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	first := two.Full()[0]
	id := archiver.Identity{Scope: "shop", SystemID: systemID, SegmentSize: first.Size, Member: "n1",
		Floor: archiver.Floor{Timeline: 1, LSN: first.Start()}, Created: time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)}
	if err := archiver.CreateArchive(t.Context(), s, id); err != nil {
		t.Fatal(err)
	}
	a, err := archiver.OpenArchive(t.Context(), s, "shop", systemID)
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := seal.New(seal.Zstd)
	if err != nil {
		t.Fatal(err)
	}
	put := func(n wal.Name, plain []byte) {
		h := seal.Header{Name: n.String(), SystemID: systemID}
		if n.Kind == wal.KindSegment {
			rep, err := wal.Check(bytes.NewReader(plain), n.Segment, systemID)
			if err != nil {
				t.Fatal(err)
			}
			h.FirstCommit, h.LastCommit = rep.FirstCommit, rep.LastCommit
		}
		packed, err := sealer.Pack(bytes.NewReader(plain), int64(len(plain)))
		if err != nil {
			t.Fatal(err)
		}
		defer packed.Close()
		sealed, err := packed.Seal(h)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Put(t.Context(), a.Key(n), sealed); err != nil {
			t.Fatal(err)
		}
	}
	for _, g := range two.Full() {
		put(wal.SegmentName(g), two.Segment(g))
	}
	put(wal.HistoryName(2), two.History().Bytes())
	return dir, two
}

// run is one command line with an empty environment.
func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs strings.Builder
	code = execute(t.Context(), args, world{func(string) string { return "" }, &out, &errs})
	return code, out.String(), errs.String()
}

// PostgreSQL that stops ends its fetch with SIGTERM, and must not take the answer for that of the archive.
func TestFetchTerminated(t *testing.T) {
	for _, signal := range []string{"recovery.signal", "standby.signal", "none"} {
		pg := dataDirectory(t)
		writeFile(t, pg, signal, "")
		silent, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var asked sync.WaitGroup
		asked.Go(func() {
			c, err := silent.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { c.Close() })
			cancel()
		})
		t.Cleanup(func() { silent.Close() })
		t.Setenv("AWS_ACCESS_KEY_ID", "a")
		t.Setenv("AWS_SECRET_ACCESS_KEY", "b")
		var errs strings.Builder
		code := execute(ctx, []string{"fetch", "--archive", "s3://bucket?endpoint=http://" + silent.Addr().String(), "--scope", "shop",
			"000000010000000000000001", filepath.Join(pg, "pg_wal", "RECOVERYXLOG")}, world{func(string) string { return "" }, io.Discard, &errs})
		asked.Wait()
		if code != exitSignal || strings.Count(errs.String(), "\n") != 1 {
			t.Errorf("%s: exit %d, want %d: %s", signal, code, exitSignal, errs.String())
		}
	}
}

// line says whether a line of s has these words, whatever is between them.
func line(s string, words ...string) bool {
	for l := range strings.Lines(s) {
		if strings.Contains(strings.Join(strings.Fields(l), " "), strings.Join(words, " ")) {
			return true
		}
	}
	return false
}

func TestVerify(t *testing.T) {
	dir, _ := writeArchive(t, testSystemID)
	where := []string{"--archive", "file://" + dir, "--scope", "shop"}
	code, out, errs := run(t, append([]string{"verify", "--deep"}, where...)...)
	if code != exitOK || errs != "" || !line(out, "No problem was found.") || !line(out, "timeline 1 → 2, without a hole up to 0/700000") {
		t.Errorf("good: exit %d\n%s%s", code, out, errs)
	}
	if !line(out, "1", "-", "-", "000000010000000000000001", "000000010000000000000003", "3", "0", "0", "0") {
		t.Errorf("no such row in\n%s", out)
	}
	if err := os.Remove(filepath.Join(dir, "shop", "7710542482846769188", "wal", "00000002", "000000020000000000000005")); err != nil {
		t.Fatal(err)
	}
	code, out, errs = run(t, append([]string{"verify"}, where...)...)
	if code != exitFound || !line(errs, "1 problem found") || !line(out, "! 000000020000000000000005 hole") || !line(out, "000000020000000000000005 is missing") || !line(out, "not checked:") {
		t.Errorf("hole: exit %d\n%s%s", code, out, errs)
	}
	code, out, _ = run(t, append([]string{"verify", "--json"}, where...)...)
	var rep archiver.Audit
	if err := json.Unmarshal([]byte(out), &rep); err != nil || code != exitFound || len(rep.Problems) != 1 || rep.Problems[0].Kind != archiver.ProblemHole || rep.Frontier != "0/500000" {
		t.Errorf("json: exit %d, %v: %+v", code, err, rep)
	}
	if code, _, errs := run(t, append([]string{"verify", "--parallel", "0"}, where...)...); code != exitUsage || !line(errs, "give a number from 1 to 1000") {
		t.Errorf("not one at a time: exit %d, %s", code, errs)
	}
	if code, out, errs := run(t, append([]string{"verify", "--timeline", "7"}, where...)...); code != exitFailed || out != "" || !line(errs, "it has nothing of timeline 7") {
		t.Errorf("no such timeline: exit %d\n%s%s", code, out, errs)
	}
	code, _, errs = run(t, "verify", "--archive", "file://"+filepath.Join(dir, "unmounted"), "--scope", "shop")
	if code != exitFailed || errs == "" {
		t.Errorf("no folder: exit %d, %s", code, errs)
	}
	code, _, errs = run(t, "verify", "--archive", "file://"+dir, "--scope", "shpo")
	if want := "there is no archive\n  check --archive and --scope"; code != exitFailed || !strings.Contains(errs, want) {
		t.Errorf("wrong scope: exit %d, %s", code, errs)
	}
}

func TestList(t *testing.T) {
	dir, _ := writeArchive(t, testSystemID)
	where := []string{"--archive", "file://" + dir, "--scope", "shop"}
	code, out, errs := run(t, append([]string{"list"}, where...)...)
	if code != exitOK || errs != "" || !line(out, "0/100000 to 0/400000", "3", "0", "2026-11-21 09:00:00Z", "2026-11-21 09:00:00Z", "3.0 MB", "1.0") || !line(out, "0/400000 to 0/700000", "3", "0", "2026-11-21 09:30:00Z", "2026-11-21 09:30:00Z") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	code, out, _ = run(t, append([]string{"list", "--json"}, where...)...)
	var l listing
	if err := json.Unmarshal([]byte(out), &l); err != nil || code != exitOK || len(l.Timelines) != 2 || l.SystemID != testSystemID || l.Timelines[1].Parent != 1 {
		t.Errorf("json: exit %d, %v: %s", code, err, out)
	}
	// A second cluster under the same scope: say which.
	other, _ := writeArchive(t, 42)
	if err := os.Rename(filepath.Join(other, "shop", "42"), filepath.Join(dir, "shop", "42")); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := run(t, append([]string{"list"}, where...)...); code != exitUsage || !line(errs, "it has archives of 2 clusters: 42, 7710542482846769188") {
		t.Errorf("two clusters: exit %d, %s", code, errs)
	}
	if code, out, _ := run(t, append([]string{"list", "--system-identifier", "42"}, where...)...); code != exitOK || !line(out, "shop/42") {
		t.Errorf("one of two: exit %d, %s", code, out)
	}
}

func TestFetch(t *testing.T) {
	dir, w := writeArchive(t, testSystemID)
	where := []string{"--archive", "file://" + dir, "--scope", "shop"}
	fetch := func(name, dst string, more ...string) (int, string) {
		t.Helper()
		code, out, errs := run(t, append(append(append([]string{"fetch"}, where...), more...), name, dst)...)
		if out != "" {
			t.Errorf("fetch wrote %q to stdout", out)
		}
		return code, errs
	}
	good := w.Full()[1]
	// By hand, without any data directory.
	t.Chdir(t.TempDir())
	if code, errs := fetch(good.String(), "here"); code != 0 || errs != "" {
		t.Fatalf("by hand: exit %d, %s", code, errs)
	}
	if b, err := os.ReadFile("here"); err != nil || !bytes.Equal(b, w.Segment(good)) {
		t.Errorf("by hand: %d bytes, %v", len(b), err)
	}
	// As PostgreSQL does, in its data directory.
	pg := dataDirectory(t)
	t.Chdir(pg)
	for _, tc := range []struct {
		signal, name, dst string
		code              int
		why               string
	}{
		{"recovery.signal", good.String(), "pg_wal/RECOVERYXLOG", 0, ""},
		{"recovery.signal", "00000002.history", "pg_wal/RECOVERYHISTORY", 0, ""},
		{"recovery.signal", "00000003.history", "pg_wal/RECOVERYHISTORY", 1, "00000003.history is not in the archive"},
		{"recovery.signal", "000000020000000000000007", "pg_wal/RECOVERYXLOG", 1, "is not in the archive"},
		{"recovery.signal", "not a name", "pg_wal/RECOVERYXLOG", 200, "parse WAL name"},
		{"standby.signal", "not a name", "pg_wal/RECOVERYXLOG", 1, "parse WAL name"},
		{"", good.String(), "pg_wal/" + good.String(), 0, ""},
	} {
		for _, f := range []string{"recovery.signal", "standby.signal"} {
			_ = os.Remove(f)
		}
		if tc.signal != "" {
			writeFile(t, pg, tc.signal, "")
		}
		code, errs := fetch(tc.name, tc.dst)
		if code != tc.code || !strings.Contains(errs, tc.why) || strings.Count(errs, "\n") != min(code, 1) {
			t.Errorf("%s, %s: exit %d, want %d: %q", tc.signal, tc.name, code, tc.code, errs)
		}
	}
	// pg_rewind may be started anywhere.
	t.Chdir(t.TempDir())
	if code, errs := fetch(good.String(), filepath.Join(pg, "pg_wal", good.String())); code != 0 {
		t.Errorf("pg_rewind: exit %d: %s", code, errs)
	}
	// A clone under a scope of its own reads its origin.
	writeFile(t, pg, "standby.signal", "")
	clone := []string{"fetch", "--archive", "file://" + t.TempDir(), "--scope", "clone", "--restore-from", "file://" + dir + "#shop"}
	if code, _, errs := run(t, append(clone, good.String(), filepath.Join(pg, "pg_wal", "RECOVERYXLOG"))...); code != 0 {
		t.Errorf("clone: exit %d: %s", code, errs)
	}
}

// dataDirectory makes a data directory with the pg_control of a PostgreSQL 15 (pg_control.h), as far as we read it.
func dataDirectory(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"global", "pg_wal"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	b := make([]byte, 8192)
	le := binary.LittleEndian
	le.PutUint64(b, testSystemID)
	le.PutUint32(b[8:], 1300)
	le.PutUint32(b[12:], 202209061)
	le.PutUint32(b[228:], 1<<20)
	le.PutUint32(b[288:], crc32.Checksum(b[:288], crc32.MakeTable(crc32.Castagnoli)))
	if err := os.WriteFile(filepath.Join(dir, "global", "pg_control"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestProgressOnlyOnTerminals(t *testing.T) {
	var b bytes.Buffer
	f, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, w := range []io.Writer{&b, f} {
		p := newProgress(w, "verify")
		p.begin = p.begin.Add(-time.Hour)
		p.show(1, 2)
		p.end()
	}
	if info, err := f.Stat(); err != nil || b.Len() != 0 || info.Size() != 0 {
		t.Errorf("drawn: %q, %d bytes in a file, %v", b.String(), info.Size(), err)
	}
	p := &progress{w: &b, what: "verify", begin: time.Now().Add(-10 * time.Second)}
	p.show(500, 1000)
	if want := "\rverify  [###############...............] 500 of 1000 objects, 50 a second, 10s left"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestSizeText(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 kB", 16 << 20: "16.0 MB", 200 << 30: "200 GB"} {
		if got := sizeText(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
