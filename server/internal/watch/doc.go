// Package watch follows the audit trail of all replicas at once: what happens,
// soon after it was recorded, with nothing left out and nothing told twice.
//
// It owns the place that a watch has come to, in every writer's chain, and how
// that place is written down so that another replica can go on from it. It
// reads the trail and never writes it; it decides nothing about who may watch,
// and takes no part in issuing: a watch that stands still holds up nobody. It
// does not check hashes and seals, which is verification's task.
package watch
