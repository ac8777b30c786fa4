package main

import (
	"maps"
	"strings"
	"testing"
	"time"
)

// Lines of a real trace: the threads 11 and 12 read at the same time, so one call of 12 has its answer in a line of its own.
const trace = `11 1700000000.100000 openat(5</d/pg_wal>, "archive_status", O_RDONLY) = 9</d/pg_wal/archive_status>
11 1700000000.200000 getdents64(9</d/pg_wal/archive_status>, 0xc000 /* 585 entries */, 32768) = 32760
12 1700000000.210000 getdents64(7</d/pg_wal>, <unfinished ...>
11 1700000000.220000 getdents64(9</d/pg_wal/archive_status>, 0xc000 /* 0 entries */, 32768) = 0
12 1700000000.230000 <... getdents64 resumed>0xc001 /* 10 entries */, 32768) = 480
12 1700000000.300000 getdents64(7</d/pg_wal>, 0xc001 /* 0 entries */, 32768) = 0
13 1700000000.400000 getdents64(8</proc/1/task>, 0xc001 /* 9 entries */, 32768) = 216
`

func TestCountReads(t *testing.T) {
	got, err := countReads(strings.NewReader(trace), time.UnixMilli(1700000000250))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]reads{
		"archive_status": {Scans: 1, Before: 1, Calls: 2, Entries: 585},
		"pg_wal":         {Scans: 1, Before: 0, Calls: 2, Entries: 10},
	}
	if !maps.Equal(got, want) {
		t.Errorf("reads: got %+v, want %+v", got, want)
	}
}

func TestBacklogGroups(t *testing.T) {
	gs := backlogGroups([]backlogged{
		{Files: 1000, PeakAnon: 40 << 20}, {Files: 1000, Reads: map[string]reads{"pg_wal": {Scans: 2, Before: 1, Calls: 1234}}},
		{Files: 101_000, PeakAnon: 40<<20 + 4_800_000},
	})
	if len(gs) != 2 || len(gs[0].Runs) != 1 || gs[0].Reads("pg_wal") != "2 (1), 1,234 calls" || gs[0].PerFile() != "" || gs[1].PerFile() != "48" {
		t.Errorf("groups: %+v and %+v; %q, %q", gs[0], gs[1], gs[0].Reads("pg_wal"), gs[1].PerFile())
	}
}
