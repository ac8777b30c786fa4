// Package sim plays whole clusters, with everything that can go wrong, on a clock of its own.
//
//	schedule ── faults ──▶ cluster  (Patroni: leader key, member keys, failovers, rejoins, pauses; an administrator)
//	                         │
//	                         ├── server × n  (PostgreSQL: pg_wal and archive_status on tmpfs)
//	                         └── node × n    (our sidecar: the real steps of leader and archiver)
//	                                │
//	                              link       (a broken network, to the DCS and to the store)
//
// What is real: leader.Machine with Choose, archiver.Archiver with its steps (Rescan, List, Confirm,
// CheckLacks, ReleaseKept, Probe, Ship, AdoptOrphans, Call.Step), wiring, queue, seal, wal, and
// both stores in memory; every fifth cluster encrypts, with nodes that have only the public key. What is a model: PostgreSQL and Patroni, after the reference pages. The loops
// around the steps are those of the sidecar, written again with the clock of the simulation.
//
// Only one thing runs at a time. A process that waits, for the clock or for an answer, gives the
// turn back; the order and all delays are drawn from the seed. So a seed gives the same event log byte for byte,
// and a put can meet everything that happens between its permission and its arrival.
//
// After every step P1, P2, P3 and P4 are checked; P5 at the end, when all faults have been healed
// and the cluster was left in peace (check.go says exactly what is owed).
//
//	go test ./sidecar/sim                                     # a handful of seeds
//	go test ./sidecar/sim -sim.seeds=2000 -sim.first=1        # with the table of what occurred
//	go test ./sidecar/sim -run TestSeeds -sim.seeds=1 -sim.first=77 -sim.log=/tmp/77.log
//	go test ./sidecar/sim -run TestSeeds -timeout 0 -sim.seeds=50000 -sim.procs=2            # with progress on stderr
//	go test ./sidecar/sim -run TestSeeds -timeout 0 -sim.seeds=50000 -sim.procs=1 -sim.for=2h # as many as there is time for
package sim
