// Package wiring is where leader's words become archiver's: pure functions and one small type,
// used by the sidecar's app.go and by the simulation, and by nobody else.
//
//	leader.View       ── Cluster ──▶  archiver.Cluster   (what the archiver may know of the cluster)
//	archiver.State    ── Record  ──▶  leader.Record      (what the other nodes may know of this one)
//
// leader and archiver never import each other; this package and app.go are the only places that
// know both.
package wiring
