// Package rotation replaces the long-term key of an account's IAM user while
// credentials go on being issued with it.
//
// It owns the steps of a rotation and how far one has come, which key every
// replica uses meanwhile, and the calls to IAM. A new key is created, verified,
// taken into use by every replica, and only then is the old one disabled and
// deleted. Each step is in storage before the next one begins, sealed, so that a
// rotation that was cut off anywhere is taken up again, or undone, by any
// replica. It issues nothing, knows nothing of gRPC, and never shows a secret.
//
// # Which key is used
//
// The configured source of the account's keys comes first, unless the key that
// it gives was replaced: then it is the one that replaced it. So an operator who
// configures another key is obeyed, and one who leaves the old key where it was
// need not hurry. An IAM user has at most two keys, and a rotation needs both
// places.
//
// # Several replicas
//
// One run at a time works on an account: it holds a claim, which it renews at
// each step and which anybody may take over once it has run out. A step is
// stored only if nobody has stored another meanwhile. Replicas follow by the
// change feed and write into the audit trail that they use the new key; the old
// one is not disabled before all that run have. Should STS not know a key yet,
// or not any more, a replica asks storage which one to use, and tries that one
// within the same call.
package rotation
