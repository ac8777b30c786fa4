package wal_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/walbaton/walbaton/archiver/wal"
)

const mib = 1 << 20

func TestSegmentNames(t *testing.T) {
	// The names are those of pg_walfile_name; TestWalfileName asks a real server about the same positions.
	for _, c := range []struct {
		size wal.SegmentSize
		lsn  wal.LSN
		want string
	}{
		{1 * mib, 0x100000, "000000010000000000000001"},
		{1 * mib, 0xFFFFFFFF, "000000010000000000000FFF"},
		{1 * mib, 0x100000000, "000000010000000100000000"},
		{2 * mib, 0xFFFFFFFF, "0000000100000000000007FF"},
		{16 * mib, 0x16B374D848, "0000000100000016000000B3"},
		{16 * mib, 0xFFFFFFFF, "0000000100000000000000FF"},
		{16 * mib, 0x100000000, "000000010000000100000000"},
		{64 * mib, 0x1FFFFFFFF, "00000001000000010000003F"},
		{256 * mib, 0x1FFFFFFFF, "00000001000000010000000F"},
		{1024 * mib, 0x1FFFFFFFF, "000000010000000100000003"},
		{1024 * mib, 0x200000000, "000000010000000200000000"},
		{1024 * mib, wal.MaxLSN, "00000001FFFFFFFF00000003"},
	} {
		s := c.size.At(1, c.lsn)
		if s.String() != c.want {
			t.Errorf("%v in segments of %d MiB: got %v, want %v", c.lsn, c.size/mib, s, c.want)
		}
		n, err := wal.ParseName(c.want, c.size)
		if err != nil || n != wal.SegmentName(s) {
			t.Errorf("ParseName(%q): got %v, %v", c.want, n, err)
		}
		if c.lsn < s.Start() || c.lsn >= s.End() && s.End() != wal.MaxLSN {
			t.Errorf("%v is not in %v: %v to %v", c.lsn, s, s.Start(), s.End())
		}
	}
}

func TestSegmentArithmetic(t *testing.T) {
	for size := wal.MinSegmentSize; size <= wal.MaxSegmentSize; size *= 2 {
		// The last segment before the second field of the name grows.
		s := size.At(3, 0x5_FFFF_FFFF)
		next := s.Next()
		if s.End() != 0x6_0000_0000 || next.Start() != s.End() || next.Prev() != s {
			t.Errorf("after %v comes %v, from %v", s, next, next.Start())
		}
		if want := "000000030000000600000000"; next.String() != want {
			t.Errorf("after %v: got %v, want %v", s, next, want)
		}
		// A boundary belongs to the segment it begins; WAL that ends there ends in the one before.
		if got := size.At(3, s.End()); got != next {
			t.Errorf("At(%v): got %v, want %v", s.End(), got, next)
		}
		if got := size.Before(3, s.End()); got != s {
			t.Errorf("Before(%v): got %v, want %v", s.End(), got, s)
		}
		if got := size.Before(3, s.End()+1); got != next {
			t.Errorf("Before(%v): got %v, want %v", s.End()+1, got, next)
		}
		if s.Compare(next) >= 0 || next.Compare(s) <= 0 || s.Compare(s) != 0 || s.On(2).Compare(s) >= 0 || s.On(4).Compare(next) <= 0 {
			t.Errorf("the order of %v and %v is wrong", s, next)
		}
	}
	for _, size := range []wal.SegmentSize{0, 1, mib - 1, mib / 2, 3 * mib, 2048 * mib} {
		if size.Valid() {
			t.Errorf("segments of %d bytes are valid", size)
		}
	}
}

func TestParseName(t *testing.T) {
	for _, c := range []struct {
		name string
		size wal.SegmentSize
		want wal.Name
	}{
		{"0000000A0000001600000FFF", mib, wal.Name{Segment: wal.Segment{Timeline: 10, Size: mib, No: 0x16FFF}}},
		{"000000010000000000000001.partial", 16 * mib, wal.Name{Kind: wal.KindPartial, Segment: wal.Segment{Timeline: 1, Size: 16 * mib, No: 1}}},
		{"000000010000000000000009.00000028.backup", mib, wal.Name{Kind: wal.KindBackup, Segment: wal.Segment{Timeline: 1, Size: mib, No: 9}, Offset: 0x28}},
		{"0000001F.history", mib, wal.HistoryName(0x1F)},
	} {
		got, err := wal.ParseName(c.name, c.size)
		if err != nil || got != c.want || got.String() != c.name {
			t.Errorf("ParseName(%q): got %+v (%v), %v, want %+v", c.name, got, got, err, c.want)
		}
	}
	for name, why := range map[string]string{
		"": "24 digits", "archive_status": "24 digits", "xlogtemp.123": "24 digits", "RECOVERYXLOG": "24 digits",
		"00000001000000000000000":                   "24 digits",
		"0000000100000000000000011":                 "24 digits",
		"00000001000000000000000a":                  "0-9 and A-F",
		"+00000010000000000000001":                  "0-9 and A-F",
		"00000001 000000000000001":                  "0-9 and A-F",
		"0000000100000000000000\x000":               "0-9 and A-F",
		"000000000000000000000001":                  "timeline 0",
		"000000010000000000000100":                  "above 000000FF",
		"000000010000000000000001.":                 "suffix",
		"000000010000000000000001.Partial":          "suffix",
		"000000010000000000000001.partial.x":        "suffix",
		"000000010000000000000001.history":          "suffix",
		"000000010000000000000001.backup":           "suffix",
		"000000010000000000000001.28.backup":        "suffix",
		"000000010000000000000001.00000028.backup2": "suffix",
		"000000010000000000000001.01000000.backup":  "outside",
		"00000002.history.tmp":                      "24 digits",
		"00000000.history":                          "timeline 0",
		"0000000a.history":                          "0-9 and A-F",
		"00000002":                                  "24 digits",
		"../00000000000000000000001":                "24 digits",
	} {
		_, err := wal.ParseName(name, 16*mib)
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("ParseName(%q): got %v, want an error about %q", name, err, why)
		}
	}
	if _, err := wal.ParseName("000000010000000000000001", 3*mib); err == nil {
		t.Error("a name was parsed for segments of 3 MiB")
	}
}

func TestNameOrder(t *testing.T) {
	want := []string{
		"00000002.history",
		"0000000A.history",
		"000000010000000000000001",
		"000000010000000000000002",
		"000000010000000000000002.00000028.backup",
		"000000010000000000000002.000000A0.backup",
		"000000010000000000000002.partial",
		"000000010000000000000003",
		"000000010000000100000000",
		"000000020000000000000001",
	}
	var names []wal.Name
	for _, s := range want {
		n, err := wal.ParseName(s, mib)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, n)
	}
	slices.Reverse(names)
	slices.SortFunc(names, wal.Name.Compare)
	for i, n := range names {
		if n.String() != want[i] {
			t.Errorf("place %d: got %v, want %v", i, n, want[i])
		}
	}
	if !slices.IsSorted(want[2:]) {
		t.Error("the names are not in the order of their bytes")
	}
}

func TestLSN(t *testing.T) {
	for s, want := range map[string]wal.LSN{"0/0": 0, "16/B374D848": 0x16B374D848, "FFFFFFFF/FFFFFFFF": wal.MaxLSN} {
		got, err := wal.ParseLSN(s)
		if err != nil || got != want || got.String() != s {
			t.Errorf("ParseLSN(%q): got %v, %v", s, got, err)
		}
	}
	if got, err := wal.ParseLSN("a/0000bC"); err != nil || got != 0xA_0000_00BC {
		t.Errorf("lower case and leading zeros: got %v, %v", got, err)
	}
	for _, s := range []string{"", "/", "1", "1/", "/1", "1/2/3", "-1/2", "1/ 2", "123456789/0", "0/123456789", "x/0", "0x1/0"} {
		if got, err := wal.ParseLSN(s); err == nil {
			t.Errorf("ParseLSN(%q): got %v", s, got)
		}
	}
}

func FuzzParseName(f *testing.F) {
	for _, s := range []string{"00000001000000000000000A", "000000010000000000000001.partial", "000000010000000000000009.00000028.backup", "0000001F.history", "0000001f.history"} {
		f.Add(s, uint8(0))
		f.Add(s, uint8(10))
	}
	f.Fuzz(func(t *testing.T, s string, shift uint8) {
		size := wal.MinSegmentSize << (shift % 11)
		n, err := wal.ParseName(s, size)
		if err != nil {
			if n != (wal.Name{}) {
				t.Errorf("ParseName(%q): %v with an error", s, n)
			}
			return
		}
		if n.String() != s {
			t.Errorf("ParseName(%q) prints %q", s, n)
		}
		if n.Compare(n) != 0 || n.Segment.Timeline == 0 {
			t.Errorf("ParseName(%q): got %+v", s, n)
		}
		if n.Kind != wal.KindHistory && size.At(n.Segment.Timeline, n.Segment.Start()) != n.Segment {
			t.Errorf("ParseName(%q): %+v does not hold its start", s, n.Segment)
		}
	})
}
