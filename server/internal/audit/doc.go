// Package audit writes and verifies the audit trail: what happened, to whom,
// by whom, in records that cannot be changed unnoticed.
//
// It owns the list of events, the canonical encoding of a record, the hash
// chain of each writer with its sealed head, the group commit that makes a
// record durable before anything it speaks of leaves the broker, the optional
// second sink of JSON lines, retention, and verification. It does not decide
// what is recorded, keeps nothing itself (storage does), and never sees a
// secret other than the key of its seals.
//
// A chain belongs to one writer: one run of one broker process, so that
// replicas never wait for each other. Each record's hash covers all its fields
// and the hash of the record before it. The head names the last record and the
// first one kept, under an HMAC that only brokers can make: without the key
// nobody can shorten a chain or write it anew. At its start and once a day a
// writer also records the heads of the other chains, so that a whole chain
// cannot vanish, nor go back to an earlier head, without a contradiction.
package audit
