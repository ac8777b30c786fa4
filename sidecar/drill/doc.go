// Package drill rehearses failovers on a real Patroni cluster: a DCS, three PostgreSQL nodes with Patroni, a walbaton
// sidecar beside each, and an archive in a folder or on MinIO, all below one folder in /tmp. They talk on loopback, or,
// with [Options].Apart, each node has a network of its own and can be cut off from the DCS, the store or another node. With
// [Options].DiskMB a node's disk is a small one that can be filled.
// With [Options].Beside two clusters share a DCS and an archive under scopes of their own: a clone, or a standby cluster.
//
// A drill reads like prose. It starts a [Cluster], uses verbs on it ([Cluster.StopStore], [Node.Kill],
// [Cluster.Switchover], [Cluster.StopDCS], [Node.Reinit], [Cluster.Pause], [Node.PromotePostgres] …), and then asks the
// oracle:
//
//   - A [Writer] numbers rows through whichever node is the primary and remembers which were acknowledged.
//   - [Cluster.TakeBase] takes a base backup before the first role change.
//   - [Cluster.Settle] ends the last segment and waits until the archive has every segment of the line, or says which
//     are missing.
//   - [Base.Restore] recovers a new server from that backup and the archive. With [ByHand] nothing of walbaton is used:
//     a shell script finds the object by its path and opens it with zstd. With [ByWalbaton] it is `walbaton-wal fetch`.
//   - [Cluster.Compare] compares every row that a survivor has with the restored server.
//   - An [Inventory] looks at the archive all the time: no object may ever change or disappear.
//   - [Cluster.Scrapes] is what a Prometheus would see.
//
// Where restores are rehearsed and no cluster is needed, a [Solo] is one PostgreSQL with a sidecar: it archives within a second of its start,
// and [Cluster.Recover] begins a recovery with any recovery_target_... of PostgreSQL's.
//
// The oracle has its own arithmetic of WAL names (names.go), on purpose: a mistake in package wal must not hide here.
// With [Copy] as archiver the same cluster runs `archive_command = cp` and no walbaton. Such a control drill must show
// a hole, which proves that the oracle sees one.
//
// The drills are in *_test.go with the build tag "drills". They need root (PostgreSQL runs as user postgres) and the
// packages that .ci/install installs. `make test` runs each in network and process namespaces of its own. By hand:
//
//	go test -tags drills -v -run TestDrill02 ./sidecar/drill
//
// $WALBATON_DRILL_DCS runs them on another DCS, and all logs are copied to the folder $WALBATON_DRILL_LOGS.
package drill
