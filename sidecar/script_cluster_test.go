package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/store/file"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
)

// disputeCmd is the command "dispute" of scripts: it makes a data directory $WORK/data, whose
// PostgreSQL looks like a running primary, and an archive $WORK/archive of scope shop in which
//
//	segment 1  is the same as in pg_wal
//	segment 2  has another content, whole like ours
//	segment 3  is damaged, and ours is whole
//	segment 4  is absent, and ours is damaged
//	segment 5  is absent, and ours ends early
//	segment 6  is absent, and ours is whole
func disputeCmd(ts *testscript.TestScript, _ bool, _ []string) {
	w := waltest.New(testSystemID, 1<<20)
	w.Commit(time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC))
	other := w.Clone(1)
	w.Fill(6)
	other.Fill(6)
	full := w.Full()
	ours := map[wal.Segment][]byte{}
	for _, g := range full {
		ours[g] = w.Segment(g)
	}
	ours[full[3]] = waltest.Flip(ours[full[3]], 300_000)
	ours[full[4]] = waltest.Zero(ours[full[4]], 400_000)
	ts.Check(makeArchive(ts.MkAbs("archive"), full[0], map[wal.Segment][]byte{
		full[0]: w.Segment(full[0]), full[1]: other.Segment(full[1]), full[2]: waltest.Flip(w.Segment(full[2]), 300_000)}))
	socket, err := os.MkdirTemp("", "pg")
	ts.Check(err)
	ts.Defer(func() { os.RemoveAll(socket) })
	l, err := net.Listen("unix", filepath.Join(socket, ".s.PGSQL.5432"))
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	ts.Check(makePrimary(ts.MkAbs("data"), socket, w.Pos(), ours))
}

// primaryCmd is the command "primary" of scripts: it makes a data directory $WORK/data, whose PostgreSQL looks like a running primary, with six good
// segments that wait.
func primaryCmd(ts *testscript.TestScript, _ bool, _ []string) {
	w := waltest.New(testSystemID, 1<<20)
	w.Commit(time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC))
	w.Fill(6)
	ours := map[wal.Segment][]byte{}
	for _, g := range w.Full() {
		ours[g] = w.Segment(g)
	}
	socket, err := os.MkdirTemp("", "pg")
	ts.Check(err)
	ts.Defer(func() { os.RemoveAll(socket) })
	l, err := net.Listen("unix", filepath.Join(socket, ".s.PGSQL.5432"))
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	ts.Check(makePrimary(ts.MkAbs("data"), socket, w.Pos(), ours))
}

func makeArchive(dir string, first wal.Segment, segments map[wal.Segment][]byte) error {
	ctx := context.Background()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	s, err := file.Open(dir)
	if err != nil {
		return err
	}
	id := archiver.Identity{Scope: "shop", SystemID: testSystemID, SegmentSize: first.Size, Member: "n1", Floor: archiver.Floor{Timeline: 1, LSN: first.Start()}}
	if err := archiver.CreateArchive(ctx, s, id); err != nil {
		return err
	}
	a, err := archiver.OpenArchive(ctx, s, "shop", testSystemID)
	if err != nil {
		return err
	}
	sealer, err := seal.New(seal.Zstd)
	if err != nil {
		return err
	}
	for g, plain := range segments {
		packed, err := sealer.Pack(bytes.NewReader(plain), int64(len(plain)))
		if err != nil {
			return err
		}
		sealed, err := packed.Seal(seal.Header{Name: g.String(), SystemID: testSystemID, Member: "n9", Term: 7})
		if err != nil {
			return err
		}
		if err := a.Put(ctx, a.Key(wal.SegmentName(g)), sealed); err != nil {
			return err
		}
		sealed.Close()
		packed.Close()
	}
	return nil
}

// makePrimary makes a data directory. postmaster.pid says "standby" where it should say "ready": so nobody
// tries SQL, and pg_control says that it is a primary.
func makePrimary(dir, socket string, pos wal.LSN, segments map[wal.Segment][]byte) error {
	files := map[string][]byte{
		"PG_VERSION": []byte("15\n"), "global/pg_control": controlFile(pos),
		"postmaster.pid": fmt.Appendf(nil, "%d\n%s\n%d\n5432\n%s\n\n\nstandby\n", os.Getpid(), dir, time.Now().Unix(), socket),
	}
	for g, plain := range segments {
		files["pg_wal/"+g.String()] = plain
		files["pg_wal/archive_status/"+g.String()+".ready"] = nil
	}
	for _, sub := range []string{"global", "pg_wal/archive_status"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return err
		}
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// controlFile is the pg_control of a PostgreSQL 15 that runs as a primary, with its last checkpoint at pos.
func controlFile(pos wal.LSN) []byte {
	b := make([]byte, 8192)
	le := binary.LittleEndian
	le.PutUint64(b, testSystemID)
	le.PutUint32(b[8:], 1300)
	le.PutUint32(b[12:], 202209061)
	le.PutUint32(b[16:], uint32(wal.DBInProduction))
	le.PutUint64(b[32:], uint64(pos))
	le.PutUint64(b[40:], uint64(pos))
	le.PutUint32(b[48:], 1)
	le.PutUint32(b[228:], 1<<20)
	le.PutUint32(b[288:], crc32.Checksum(b[:288], crc32.MakeTable(crc32.Castagnoli)))
	return b
}
