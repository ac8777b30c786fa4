package wal_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"time"

	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
)

// One pass over the bytes checks and digests them.
func ExampleChecker() {
	w := waltest.New(7710542482846769188, 1<<20)
	w.Commit(time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC))
	w.Switch()
	s := w.Full()[0]

	check, digest := wal.NewChecker(s, w.SystemID()), sha256.New()
	if _, err := io.Copy(io.MultiWriter(check, digest), bytes.NewReader(w.Segment(s))); err != nil {
		fmt.Println(err)
	}
	r := check.Report()
	fmt.Printf("%v is %v up to %v\n", s, r.State, r.End)
	fmt.Printf("PostgreSQL %d, %d records, the last a switch: %v\n", r.Major, r.Records, r.Switch)
	fmt.Println("last commit", r.LastCommit)
	// Output:
	// 000000010000000000000001 is complete up to 0/200000
	// PostgreSQL 15, 2 records, the last a switch: true
	// last commit 2026-02-03 04:05:06 +0000 UTC
}

// A standby that follows a promotion is left with a segment that looks whole by its name and size.
func ExampleHistory_Holds() {
	w := waltest.New(7710542482846769188, 1<<20)
	w.Fill(3)
	promoted := w.Fork(2)
	promoted.Fill(1)

	cut := promoted.Current().Prev().On(1)
	r, err := wal.Check(bytes.NewReader(promoted.Segment(cut)), cut, w.SystemID())
	if err != nil {
		fmt.Println(err)
	}
	end, _ := promoted.History().End(1)
	fmt.Println(r.State, r.End == end, r.Why)
	fmt.Println(promoted.History().Holds(cut), promoted.History().Holds(cut.On(2)), promoted.History().Holds(cut.Prev()))
	// Output:
	// cut true the records end
	// false true true
}
