// Package directory holds the broker's current picture of who and what may be:
// tenants, users, agents, locations, grants, revoked certificates, ended
// sessions and revocations.
//
// It owns an in-memory copy of what is stored, kept current by the change
// feed, so that no check of a caller costs a database read. It never writes to
// storage, decides nothing, and holds no password hash: whether somebody may
// do something is for authn and lease to say.
//
// Three rules make the copy safe to decide from. Sequence is read before the
// look-ups and given to the audit trail as the fence, which refuses a decision
// that storage has moved past. Sync returns only when everything committed
// before it is applied and every observer has been told, so that a revocation
// acknowledged after Sync is in force. And whatever goes wrong with the feed (a
// lost notification, entries trimmed, a storage restored to an older state)
// ends in a reading of Head or in a new Load, never in a gap.
package directory
