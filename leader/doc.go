// Package leader answers one question: may this node ship?
//
// It keeps one promise of the product, which tests and comments cite by number:
//
//   - P4 One baton. At most one node holds the baton at a time. Without it a node ships
//     segments only to open a timeline as Patroni's leader, or while the DCS does not answer
//     and its PostgreSQL is a primary or it was the last known leader, on timelines that are
//     open. Puts never depend on P4; deletes do.
//
// Who has the baton is a matter of a lease in the DCS, and of clocks that run at about the
// same speed; they need not show the same time. One holding of the baton is a term, with a
// number that only grows. Its context ends in time, whatever hangs:
//
//	claim or renewal                    the term's       the lease may
//	sent        served    answered      context ends     be another's
//	 |            |          |               |                |
//	 |------------|----------|---------------|----------------|-----> time
//	 |<------------------------- TTL ------------------------>|  or later
//	 |<----------- TTL - margin ------------>|<--- margin --->|
//	 |<-- every -->| the next renewal is sent, and moves the end when it is answered
//
//	every + margin < TTL         or a term ends before its first renewal
//	UploadGrace (1 s) < margin   uploads get a second after the end, then are cancelled
//
// The end is a timer set from when the request was sent: the server handled it later, so the
// lease lasts longer. A renewal that hangs cannot move it. From the moment a term is to end
// its lease is not renewed; it is given back when the work has returned, else it runs out.
// The margin covers what the timer cannot: work that takes a moment to notice, and clocks of
// different speed. A machine that stands still (a paused VM) may wake with work under way in
// a term that is over; so before a batch of deletes look whether its context has ended, and then
// read the term back with Elector.Read.
//
// Who is to have it says Choose, a pure function of a View; every sidecar gets the same
// answer. The holder acts on it by ending its term, the chosen node by claiming a free baton:
// at once when Patroni's leader key has changed, else when two readings agree.
//
//	Elector   Run calls the work of each term, Announce publishes our record, View and Read
//	          give readings
//	Machine   the same without clock, network and goroutines: a simulation drives it
//	Choose    who is to hold the baton            View    what Patroni and the sidecars say
//	Record    what a sidecar tells the others     Ranges  sets of segments, as compact text
//	dcs       the door to etcd and its kin        patroni what Patroni wrote there
//
// The package knows segments only as numbers, and nothing of archives: package archiver does
// the work, and they meet in the sidecar.
package leader
