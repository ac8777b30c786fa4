package wal_test

import (
	"hash/crc32"
	"testing"

	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
)

// BenchmarkChecker checks a dense segment of 16 MiB, as the shipper does before every put; crc is
// the checksum alone over the same bytes, which no check can beat.
func BenchmarkChecker(b *testing.B) {
	const size = 16 << 20
	full := func(data int) ([]byte, wal.Segment) {
		w := waltest.New(1, size)
		s := w.Current()
		for w.Pos() < s.End() {
			w.Record(data)
		}
		return w.Segment(s), s
	}
	table := crc32.MakeTable(crc32.Castagnoli)
	for _, c := range []struct {
		name string
		data int
	}{{"records of 70 bytes", 44}, {"records of 200 bytes", 174}, {"records of 2 kB", 2000}, {"records of 7 kB", 7000}, {"records of 100 kB", 100_000}} {
		bytes, s := full(c.data)
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				k := wal.NewChecker(s, 1)
				if _, err := k.Write(bytes); err != nil {
					b.Fatal(err)
				}
				if r := k.Report(); r.State != wal.Complete {
					b.Fatal(r.Why)
				}
			}
		})
	}
	bytes, _ := full(2000)
	b.Run("crc", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			crc32.Checksum(bytes, table)
		}
	})
}

// BenchmarkJoin proves a record over two segments, after both were read.
func BenchmarkJoin(b *testing.B) {
	w := waltest.New(1, 1<<20)
	w.Record(1_500_000)
	w.Fill(1)
	var joints []wal.Joint
	for _, s := range w.Full()[:2] {
		k := wal.NewChecker(s, 1)
		if _, err := k.Write(w.Segment(s)); err != nil {
			b.Fatal(err)
		}
		joints = append(joints, k.Joint())
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := wal.Join(joints[0], joints[1]); err != nil {
			b.Fatal(err)
		}
	}
}
