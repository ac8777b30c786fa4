// Package archiver moves the WAL of one PostgreSQL into one archive.
//
//	out:  pg_wal ─ queue ─ wal check ─ seal ─ store.Put if absent ─ covered ─ push answers 0
//	in:   store.Get ─ unseal ─ check ─ temp file, fsync, rename ─ fetch answers 0
//
// It keeps these promises; tests and comments cite them by number.
//
//   - P1 Acknowledged means stored. Push answers 0 only when every required archive durably has good
//     content of that file; or the file lies below the floor; or our differing copy is off the line
//     and safe in orphans/.
//   - P2 Written once. The only write is put-if-absent. Nothing in the archive is overwritten, by
//     anyone, ever; only expire deletes.
//   - P3 Nothing but good WAL. A segment is shipped only if it is what its name says (system identifier,
//     timeline, every page address, the CRC of every record that ends in it), or an administrator
//     accepted it by name. A record that began in the segment before is checked where this node has
//     that segment, or archived it; elsewhere only the deep verify can.
//   - P5 No gap. As long as one surviving node has the bytes, every segment of the cluster's history
//     reaches the archive, after any sequence of role changes, with no human step.
//   - P6 Restore gives the exact bytes, or a proven "not there", or an abort. Never a guess.
//
// P4, one baton, is kept by package leader, which this one does not know: they meet in the
// sidecar, which tells the archiver what the cluster looks like (Cluster, Scope) and calls
// Archiver.Lead inside a term.
//
// Who does what:
//
//	Archive    one cluster's folder in one store: keys, identity, floors
//	local      pg_wal, and what reading its files said          (queue, wal)
//	coverage   which names the archive has                       (a listing, our puts, comparisons)
//	Archiver   Lead ships inside a term; Tend does all that needs none; Push answers archive_command
//	prove      is it good WAL, also where it meets the segments beside it?   (P3)
//	mayPut     may this node put this file now?                  a pure function, DESIGN section 6
//	Judge      which row of the table answers a push?            a pure function, DESIGN section 7
//	Explain    all about one file, and what a push of it would be told
//	Resolve    an administrator's decision, recorded below resolved/ and honoured by every node
//	Restorer   fetch: exact bytes, a proven "not there", or an abort
//	window     fetches ahead of a recovery (a package of its own)
//	Audit      verify: holes, forks, damaged objects, and which parts of the line can be restored
//	Locate     where a moment lies, and whether a recovery reaches it
//	PlanExpire what an expire would delete; Expire raises the floor, then deletes, inside a term
//
// The store and pg_wal are the truth. What an Archiver remembers may be dropped at any time, and
// is believed only while a file is the very same one (device, inode, size, mtime, ctime).
package archiver
