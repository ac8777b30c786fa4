// Package window fetches segments ahead of a recovery. PostgreSQL asks for one segment, replays it, and asks for the next
// one: without a window it waits for the network each time.
//
//	w, err := window.New(window.Options{Dir: "/pg/main-walbaton/prefetch", Bytes: 1 << 30, Workers: 4, Fetch: fetch})
//	go w.Run(ctx)
//	…
//	f := w.Ask(ctx, key, moves)          // PostgreSQL asks; nil: ask the archive
//	if f == nil || f.Move(root, "RECOVERYXLOG") != nil { … }
//	w.Given(key)                         // PostgreSQL has it: what comes after it is fetched
//
// How far ahead it is follows what replay consumes. It is twice as far after each call that finds the next segment not
// ready, and one segment less far after each that finds one which lay there for long. Its bounds are Bytes on the disk,
// half of what is free there, and Workers segments under way.
//
// Which segment comes next is a matter of timelines: the one with the next number, on the timeline that the line has it
// on. The line is what the recovery's own calls for histories told ([Window.Follow]). A call that does not fit shows that
// PostgreSQL knows better: what is off the plan is thrown away, and the plan begins anew at that call.
//
// The window holds whole files that Fetch has checked, and nothing else. That a file is absent, or could not be fetched, is never an
// answer: the call then asks by itself. Whether a file may be given is the caller's to decide, at the time of the call.
//
// Nothing outlives Run, and what a process that was killed has left is removed by the next. While nobody asks, or
// PostgreSQL has its WAL from elsewhere (Options.Wanted), nothing is fetched, and what there is goes.
package window
