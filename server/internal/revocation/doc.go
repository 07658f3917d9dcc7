// Package revocation cuts parties off: it makes the broker refuse them, and it
// has AWS deny the credentials that they already hold.
//
// It owns the act of revoking, with its records in the audit trail; the policy
// that denies what was issued before, and how it is kept within AWS's limits;
// and a keeper for each account that reconciles the policy on the account with
// the revocations in storage, until each has run out.
//
// It knows nothing of gRPC. It ends no stream and drops no lease: those see the
// change in the directory by themselves. On AWS it touches one inline policy,
// PolicyName, of the one role or user that the account issues for; other
// people's policies are measured, because they share the space, and otherwise
// left alone.
//
// # The policy
//
// A credential carries session tags: the ids of its tenant, user, agent and
// grant. A revoked party is denied everything by its tag, if the session is
// older than the revocation; a single credential is denied by the name of its
// session. Keys without tags, the broker's own among them, never match.
//
// All inline policies of a user share 2,048 characters, those of a role 10,240.
// Compose writes exact statements while they fit. When they do not, it merges:
// first all parties of one kind get the latest of their times, then users,
// agents, grants and credentials are denied by their tenants, those first of
// which a tenant has the most. Merging denies more than was asked for, within
// the tenants concerned, and only sessions older than the latest revocation:
// what is issued after it is never denied. What does not fit even so is left
// out, the newest first, and says so; nothing is ever denied to everybody.
//
// # Several replicas
//
// Every replica has keepers. What they write depends on the revocations alone,
// and a keeper looks before it writes, so that two at once do the same work
// twice and no harm. The replica on which an operator revoked writes at once;
// the others wait a moment and mostly find the work done. A revocation counts
// as applied only when the policy that has it was read back from the account;
// a keeper that overwrote it with an older one notices when it reads back, and
// corrects it.
package revocation
