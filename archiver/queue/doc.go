// Package queue is one node's pg_wal and its archive_status: what is there, and that something is new.
//
//	q, err := queue.Open("/var/lib/postgresql/15/main/pg_wal", size)  // may be a symlink
//	files, err := q.Scan()          // every WAL file and its status; files.All() has the oldest WAL first
//	f, id, err := q.Open(name)      // read it, then ask again: another Ident means "recycled under us"
//	now, err := q.Ident(name)
//	err = q.MarkDone(name)          // .ready becomes .done
//	err = q.Watch(ctx, wake)        // blocks; wake is called when a Scan may find something new
//
// The package reads, and renames status files; it creates, writes and removes nothing. It goes through an
// os.Root, so that no symlink leads it out of pg_wal. It sees only names that wal.ParseName takes; the rest
// of pg_wal (summaries, xlogtemp.*, RECOVERYXLOG, *.tmp, folders) does not exist for it.
//
// A Scan reads each folder once, the status files first: PostgreSQL makes the file before its status and
// removes it before its status, so Gone is never said of a file that is just new. A status file that is
// renamed during the Scan may be missed; the file then has status None until the next.
//
// No archive_status folder is an empty one: Patroni and pg_rewind wipe it. No pg_wal is an error. When
// pg_wal is no longer the folder that was opened (a new data directory after a re-clone, a disk that was
// mounted again), Scan, Watch, Poll, Check and whatever finds a name missing return ErrReplaced: close
// the queue and open a new one.
//
// Linux only: it uses inotify and the inode numbers of Linux.
package queue
