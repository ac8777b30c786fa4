// Package rehearsal rehearses a change of the primary on a real cluster of a user: `walbaton drill switchover`.
//
// It writes numbered rows through the primary, has Patroni switch over (or runs a command that takes the primary away), and
// watches: who is primary, who holds the baton, which file has reached the archive. Then it says what that cost and whether all is
// there: the time without writes, the time until the new timeline was in the archive, every row, every segment, and, when asked
// to, a server restored to the last moment with every row compared.
//
//	r := rehearsal.New(options)
//	plan, err := r.Plan(ctx)      // *Refused: why this cluster is left alone; nothing was touched
//	plan.String()                 // what it will do, for the person who is asked
//	result := r.Run(ctx, plan)    // does it, and cleans up, also when ctx ends in the middle
//	rehearsal.Write("out", result)
//
// The parts, and who may touch what:
//
//	check.go     why a cluster is refused: a pure function of facts.go's facts
//	table.go     the SQL: the schema with its table, and what the primary is asked
//	writer.go    the rows, and the ends of segments, through whichever member is primary
//	watch.go     small questions, at most five a second to each: Patroni, sidecars, archive
//	restore.go   a base backup and a recovery, below one scratch folder
//	run.go       the order of it all; round.go is one change of the primary
//	judge.go     what it means: a pure function of what was seen
//	page.go      the report: Markdown and HTML, with the picture of drawing.go, pure functions of a Result
//
// What it leaves behind is nothing: the schema with its table is dropped, the scratch folder removed, every process that it
// started is waited for. The ends of segments stay in the archive, as they would without it.
//
// This is no test harness (that is package drill, which may not use walbaton's code). It is part of the program.
package rehearsal

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/leader/patroni/restapi"
)

// Options say what is rehearsed, and how everything is reached.
type Options struct {
	API     *restapi.Client
	Patroni string // http://host:port of any member's REST API

	// Archive is the archive that the sidecars ship to.
	Archive *archiver.Archive
	// Sidecar is host:port of any sidecar; the others are learnt from it. Status reads /status.json there.
	Sidecar string
	Status  func(ctx context.Context, address string) ([]byte, error)

	// Connect gives how the PostgreSQL at host and port is reached, as a user who may make a schema and end segments.
	Connect func(host string, port int) (*pgx.ConnConfig, error)

	Candidate string // who shall be the primary; "": Patroni chooses
	Command   string // for sh: takes the primary away, instead of a switchover; it sees WALBATON_DRILL_PRIMARY, _HOST and _PORT
	Rounds    int    // how often

	Rate  int           // rows a second
	Every time.Duration // between two ends of segments
	Write time.Duration // how long rows are written before the change, and after it
	Wait  time.Duration // the limit of each wait for the cluster

	Restore *RestoreOptions // nil: none

	Version string                           // walbaton's, for the report
	Say     func(format string, args ...any) // tells the user what happens, a line each
}

// RestoreOptions say how a server is restored.
type RestoreOptions struct {
	Scratch string // the folder below which the scratch folder is made
	BinDir  string // with pg_basebackup and postgres; "": PATH decides
	Command string // restore_command
	// Backup gives a connection string without a password for pg_basebackup, and what its environment needs.
	Backup func(host string, port int) (conninfo string, env []string)
}

// Rehearsal is one of them.
type Rehearsal struct{ o Options }

// New gives defaults to what is zero: one round, 50 rows a second, a segment every 3 s, 10 s of rows before and after, 5 minutes for
// each wait.
func New(o Options) *Rehearsal {
	defaults := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	defaults(&o.Every, 3*time.Second)
	defaults(&o.Write, 10*time.Second)
	defaults(&o.Wait, 5*time.Minute)
	o.Rounds, o.Rate = max(o.Rounds, 1), max(o.Rate, 0)
	if o.Rate == 0 {
		o.Rate = 50
	}
	if o.Say == nil {
		o.Say = func(string, ...any) {}
	}
	return &Rehearsal{o}
}
