// Package wal knows PostgreSQL's write-ahead log as files: what they are called, what a
// timeline's history says, and whether a segment holds what its name promises. It reads bytes it is
// given and does nothing else: no directories, no network, no clock.
//
//	name.go     LSN, Timeline, Segment and Name: parse, print, compare, count
//	history.go  History: the line of a timeline, and who holds what on it
//	check.go    Checker: one pass over a segment's bytes gives a Report (report.go) and a Joint
//	join.go     Join: two segments that were read alone fit together
//	control.go  ReadControl: pg_control without a server
//	waltest/    makes WAL in memory for tests, and damages it
//
// # What the check proves
//
// A Checker is an io.Writer, so the pass that seals or digests a segment checks it too. It follows
// the pages and then the records, as PostgreSQL's own reader does:
//
//   - every page carries this segment's address, cluster and format, and a timeline that is at most
//     the file's and never goes back (the first pages of a new timeline carry the parent's);
//   - every record that starts here is whole: length, link to the record before it, CRC-32C. The link
//     matters: a recycled file holds old records whose CRC is good;
//   - the records reach the segment's end, or an XLOG_SWITCH after which all is zero.
//
// Then the segment is Complete. Cut means that the records end earlier and nothing of this segment
// follows: it is in progress, a .partial, or what a follower has of a timeline that it left.
// Damaged means that good WAL of this segment lies behind the place where the records break.
// Foreign means that the file is not this segment at all.
//
// What one segment cannot tell: a record that began in the segment before, or ends in the one after, has its
// CRC split between the two. So a Checker also gives a Joint, the state of that CRC and of the links at both
// ends, and Join proves afterwards that two segments fit, in whatever order they were read. A recycled
// file of the parent timeline with the same number is in order in itself; History.Explains finds it
// out. A file that a server is still writing may look Damaged for a moment.
//
// Formats: PostgreSQL 12 to 18, little-endian, pages of 8192 bytes. Layouts are those of
// xlog_internal.h, xlogrecord.h and pg_control.h.
package wal
