package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/store/file"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
)

// archiveCmd is the command "archive" of scripts: it makes an archive $WORK/archive of scope shop, in which two minutes pass with each segment,
// from 2026-11-28 09:00 UTC on:
//
//	timeline 1  segments 1 to 4, and the .partial of 5; a base backup in 2
//	timeline 2  a branch from the beginning of 5 on: segments 5 to 7
//	timeline 3  the line, from the same place on: segments 5 to 12; a base backup in 11
//	orphans     one of timeline 1
//
// Files that are named as arguments are left out.
func archiveCmd(ts *testscript.TestScript, _ bool, without []string) {
	ts.Check(makeTimelines(ts.MkAbs("archive"), without))
}

func makeTimelines(dir string, without []string) error {
	at := time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC)
	fill := func(w *waltest.Writer, n int) {
		for range n {
			w.Commit(at)
			w.Record(300_000)
			w.Commit(at.Add(time.Minute))
			w.Fill(1)
			at = at.Add(2 * time.Minute)
		}
	}
	one := waltest.New(testSystemID, 1<<20)
	fill(one, 4)
	one.Commit(at)
	branch := one.Fork(2)
	line := one.Fork(3)
	one.Record(100_000)
	fill(branch, 3)
	fill(line, 8)
	p, err := newPutter(dir, one.Full()[0])
	if err != nil {
		return err
	}
	for _, w := range []*waltest.Writer{branch, line} {
		for _, s := range w.Full() {
			if err := p.put(wal.SegmentName(s), w.Segment(s), without); err != nil {
				return err
			}
		}
		if err := p.put(wal.HistoryName(w.History().Timeline), w.History().Bytes(), without); err != nil {
			return err
		}
	}
	if err := p.put(wal.Name{Kind: wal.KindPartial, Segment: one.Current()}, one.Segment(one.Current()), without); err != nil {
		return err
	}
	for _, s := range []wal.Segment{one.Full()[1], line.Full()[10]} {
		label := fmt.Sprintf("START WAL LOCATION: %v (file %v)\nSTOP WAL LOCATION: %v (file %v)\nLABEL: nightly\nSTOP TIME: 2026-11-28 09:03:00 UTC\n", s.Start()+0x28, s, s.Start()+0xF8, s)
		if err := p.put(wal.Name{Kind: wal.KindBackup, Segment: s, Offset: 0x28}, []byte(label), without); err != nil {
			return err
		}
	}
	lost := []byte("what the old primary wrote alone")
	return p.a.Put(context.Background(), p.a.OrphanKey("n1", wal.SegmentName(one.Current()), seal.DigestOf(lost)), archiver.Bytes(lost))
}

// putter seals files into a new archive in a folder.
type putter struct {
	a      *archiver.Archive
	sealer *seal.Sealer
}

func newPutter(dir string, first wal.Segment) (*putter, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	s, err := file.Open(dir)
	if err != nil {
		return nil, err
	}
	id := archiver.Identity{Scope: "shop", SystemID: testSystemID, SegmentSize: first.Size, Member: "n1", Floor: archiver.Floor{Timeline: 1, LSN: first.Start()}}
	if err := archiver.CreateArchive(context.Background(), s, id); err != nil {
		return nil, err
	}
	p := &putter{}
	if p.a, err = archiver.OpenArchive(context.Background(), s, "shop", testSystemID); err != nil {
		return nil, err
	}
	p.sealer, err = seal.New(seal.Zstd)
	return p, err
}

// put stores a file as the archiver would, with its commit times, unless it is to be left out.
func (p *putter) put(n wal.Name, plain []byte, without []string) error {
	if slices.Contains(without, n.String()) {
		return nil
	}
	h := seal.Header{Name: n.String(), SystemID: testSystemID, Member: "n1"}
	if n.Kind == wal.KindSegment || n.Kind == wal.KindPartial {
		rep, err := wal.Check(bytes.NewReader(plain), n.Segment, testSystemID)
		if err != nil {
			return err
		}
		h.FirstCommit, h.LastCommit = rep.FirstCommit, rep.LastCommit
	}
	packed, err := p.sealer.Pack(bytes.NewReader(plain), int64(len(plain)))
	if err != nil {
		return err
	}
	defer packed.Close()
	sealed, err := packed.Seal(h)
	if err != nil {
		return err
	}
	defer sealed.Close()
	if err := p.a.Put(context.Background(), p.a.Key(n), sealed); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil // both lines have it
}
