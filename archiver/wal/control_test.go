package wal_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"path/filepath"
	"testing"

	"github.com/walbaton/walbaton/archiver/wal"
)

// torn is a pg_control that a server is writing: its first reads are half old, half new.
type torn struct {
	bytes []byte
	tears int
	reads int
}

func (r *torn) ReadAt(p []byte, off int64) (int, error) {
	n, err := bytes.NewReader(r.bytes).ReadAt(p, off)
	if r.reads++; r.reads <= r.tears {
		p[40] ^= 1
	}
	return n, err
}

func TestTornControl(t *testing.T) {
	b := unzstd(t, filepath.Join(vectors, "pg15"), "pg_control")
	r := &torn{bytes: b, tears: 4}
	if c, err := wal.ReadControl(r); err != nil || c.SystemID != cluster || r.reads != 5 {
		t.Errorf("got %+v, %v after %d reads", c, err, r.reads)
	}
	r = &torn{bytes: b, tears: 1000}
	if c, err := wal.ReadControl(r); !errors.Is(err, wal.ErrControl) || r.reads != 10 || c != (wal.Control{}) {
		t.Errorf("got %+v, %v after %d reads", c, err, r.reads)
	}
	if _, err := wal.ReadControl(bytes.NewReader(b[:100])); !errors.Is(err, wal.ErrControl) {
		t.Errorf("half a file: got %v", err)
	}
	broken := errors.New("disk on fire")
	if _, err := wal.ReadControl(failing{broken}); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
}

type failing struct{ err error }

func (f failing) ReadAt([]byte, int64) (int, error) { return 0, f.err }

// The versions without a vector differ from 15 in their numbers, and 18 in where the CRC is.
func TestControlVersions(t *testing.T) {
	b := unzstd(t, filepath.Join(vectors, "pg15"), "pg_control")
	for _, v := range []struct {
		version, catalog uint32
		crc              int
		major            int
	}{
		{1201, 201909212, 288, 12}, {1300, 202007201, 288, 13}, {1300, 202107181, 288, 14}, {1300, 202209061, 288, 15},
		{1300, 202307071, 288, 16}, {1700, 202406281, 288, 17}, {1800, 202506291, 292, 18}, {1100, 201809051, 288, 0}, {1902, 202607071, 292, 0},
	} {
		b := bytes.Clone(b)
		binary.LittleEndian.PutUint32(b[8:], v.version)
		binary.LittleEndian.PutUint32(b[12:], v.catalog)
		binary.LittleEndian.PutUint32(b[v.crc:], crc32.Checksum(b[:v.crc], crc32.MakeTable(crc32.Castagnoli)))
		c, err := wal.ReadControl(bytes.NewReader(b))
		if c.Major != v.major || (err == nil) != (v.major != 0) {
			t.Errorf("%d, catalog %d: got version %d, %v, want %d", v.version, v.catalog, c.Major, err, v.major)
		}
	}
	b = bytes.Clone(b)
	binary.LittleEndian.PutUint32(b[228:], 3*mib)
	binary.LittleEndian.PutUint32(b[288:], crc32.Checksum(b[:288], crc32.MakeTable(crc32.Castagnoli)))
	if _, err := wal.ReadControl(bytes.NewReader(b)); !errors.Is(err, wal.ErrControl) {
		t.Errorf("segments of 3 MiB: got %v", err)
	}
}
