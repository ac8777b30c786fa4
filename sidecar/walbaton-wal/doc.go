// Walbaton-wal is the small client that PostgreSQL runs for every WAL file, and after each restartpoint:
//
//	archive_command = 'walbaton-wal push %p'
//	restore_command = 'walbaton-wal fetch %f %p'
//	archive_cleanup_command = 'walbaton-wal cleanup %r'
//
// It asks the sidecar over a unix socket, waits, and exits with what the sidecar said. It
// decides nothing about WAL. It is a program of its own, and uses the standard library only,
// because PostgreSQL starts it for every segment: what is linked into walbaton costs ten
// times as long to start. For the same reason it does without net, fmt and flag.
//
// The conversation is one line each way. The client sends words in Go's quotes, separated by
// one space:
//
//	"walbaton/1" "push" "pg_wal/000000010000000000000007" "/var/lib/postgresql/15/main"
//	"walbaton/1" "fetch" "00000002.history" "pg_wal/RECOVERYHISTORY" "/var/lib/postgresql/15/main"
//
// The last word is the working directory, which relative paths start from. The sidecar sends a
// dot a second while it works, then one line: an exit code, a space, a message in quotes that
// may be empty. A code below zero means "I cannot answer this". Five seconds of silence mean
// that no sidecar runs.
//
// cleanup is asked for in the same way, with the segment that %r names. It exits 0 whatever comes of it, with a line when the
// sidecar was not told, and 1 when it is called wrongly.
//
// install copies the program, and walbaton where it lies beside it, into a folder that containers share; their images have no cp.
//
// Exit codes. push exits 0 (stored) or 1 (not stored, try again): more than 125 would kill
// PostgreSQL's archiver. fetch exits with the sidecar's code; without a sidecar it becomes
// `walbaton fetch`, which reads the archive itself. Where that cannot be run, nobody knows
// whether the archive has the file, and 1 would tell a recovery from a backup that the WAL ends
// here: it would open the database with rows missing. So fetch then exits 200, which stops the
// recovery so that it can be resumed; on a standby 1, and the standby streams.
//
// SIGTERM ends it at once by that signal, which is how PostgreSQL tells a shutdown from a
// failure (xlogarchive.c, RestoreArchivedFile). SIGQUIT does the same.
package main
