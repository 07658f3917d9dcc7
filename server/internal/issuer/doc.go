// Package issuer gets temporary credentials from an STS.
//
// It owns the two ways of asking for them, GetFederationToken and AssumeRole,
// behind one interface; the limits that STS sets on a request, which it checks
// before the call; the plausibility of an answer, which it checks before
// anybody sees it; and the split of failures into those that waiting cures and
// those that it does not. One call of Issue is at most one request to STS.
//
// It never retries, queues, caches or limits the rate: the lease queue does.
// It builds no policy and decides about nobody's rights. It stores nothing,
// logs nothing, and puts neither a secret key nor a session token into an
// error.
package issuer
