package wal

import "hash/crc32"

// castagnoli is PostgreSQL's CRC-32C (pg_crc32c.h): Go computes it with the same machine instruction.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checker checks one segment as its bytes are written to it.
type Checker struct {
	seg      Segment
	systemID uint64
}

// NewChecker checks what is written to it as the segment s of the cluster systemID.
func NewChecker(s Segment, systemID uint64) *Checker { return &Checker{seg: s, systemID: systemID} }

// Write takes the next bytes of the segment, in chunks of any size; it never fails.
func (c *Checker) Write(p []byte) (int, error) { return len(p), nil }

// Report tells what the bytes so far are.
func (c *Checker) Report() Report { return Report{State: Foreign, Why: "the check is not written yet"} }
