// Package lease decides when a credential is issued and renewed, and for whom.
//
// It owns one lease for each (agent, user, grant) that is being supplied: the
// credential in force, the moment of its renewal, the trouble it is in, and
// who is told. It owns the order in which leases reach STS, the pace at which
// they do, and the rule that nothing leaves before the audit trail has it.
//
// It knows nothing of gRPC, builds no policy, reads no database and has no
// opinion on who may have what: it asks an Authority, again and again, and a
// credential is handed over only on a fresh answer. Credentials live in memory
// alone.
//
// # One lease
//
// A lease rests until it is due: at its renewal time, which follows from the
// credential's id and so is drawn exactly once, when a subscriber needs a
// credential that the broker does not have, when the terms of the grant
// change, or when S3 refused what it has. A due lease stands in its account's
// queue, ordered by when its holder runs dry. One call at a time is in flight
// for a lease, on the manager's own context. Its result is recorded, checked
// once more and delivered to every subscriber.
//
// # Time
//
// Decisions follow a timeline that is the process's monotonic clock plus every
// forward step of the wall clock. A suspended machine thus finds its leases as
// old as they are; a clock set back changes nothing. A clock set forward
// wrongly makes leases due early, once, at the pace of the token bucket, which
// runs on the monotonic clock alone.
//
// # Locks
//
// A lease's own mutex guards its state, and subscribers are called under it,
// so that each sees events in one order. The manager's locks guard the map of
// leases and the queues; they are taken after a lease's. The authority, the
// issuer, the audit trail and the history are called under no lock.
package lease
