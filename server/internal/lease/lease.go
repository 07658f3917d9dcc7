package lease

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"

	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// key is what makes two requests the same. It holds nothing that has no part
// in the answer: a certificate bounds the lifetime, and how that is kept is in
// give and in plan.
type key struct {
	// agent is the agent's id, or where a service asks, the actor and what it
	// acts for.
	agent, user, grant string
}

func keyOf(h Holder, grantID string) key {
	if h.AgentID == "" {
		return key{agent: h.Actor + " " + h.Purpose, user: h.UserID, grant: grantID}
	}
	return key{agent: h.AgentID, user: h.UserID, grant: grantID}
}

// phase is how far a lease is on its way to a credential.
type phase uint8

const (
	// resting leases wait for their time, or for something to happen.
	resting phase = iota
	// ready ones stand in their account's queue.
	ready
	// flying ones have a call in flight; nothing else is begun for them.
	flying
)

// lease is the duty to keep one (agent, user, grant) supplied.
type lease struct {
	key key

	// mu guards what follows, up to epoch.
	mu sync.Mutex
	// subs are those who are supplied, in the order they came.
	subs  []*Subscription
	phase phase
	// ended: no longer in the map; whoever still has a pointer looks again.
	ended bool
	// stale: the terms of the grant are no longer those of cur.
	stale bool
	// rejected: S3 refused cur, says a holder.
	rejected bool
	// permanent: trouble does not go away by waiting.
	permanent bool
	// expiryTold: the holders know that cur is past its end.
	expiryTold bool
	// attempts counts failures since the last success.
	attempts uint8

	// account is where the grant's location is. It has no issuer until the
	// first entitlement.
	account *account
	// cur is the credential in force, nil if there is none. What it points to
	// never changes.
	cur *holding
	// previous is the id of the credential before cur.
	previous string
	// name is the grant's, as last seen.
	name string
	// trouble is why the last attempt failed.
	trouble *reason.Error
	// refused is a hash of the terms that STS refused for good.
	refused uint64
	// retryAt is when the next attempt may be made; after a permanent refusal,
	// when a new subscription may make one.
	retryAt instant
	// lookAt is when a look-up of held credentials is repeated; zero: none is.
	lookAt instant
	// lingerAt is when a lease without subscribers ends.
	lingerAt instant
	// reportedAt is when S3's refusal was last reported.
	reportedAt instant
	// dueSince is when the lease came into its account's queue.
	dueSince instant
	// issuedAt is the latest IssuedAt given out, in Unix nanoseconds.
	issuedAt int64

	// epoch grows with each change that may concern the lease. An answer of
	// the authority counts only if the epoch did not move while it was asked.
	epoch uint32

	// The queues' lock guards these.
	place [queueKinds]int32
	// queued is the queue of an account that has the lease, nil if none does.
	queued *queue
	// danger is when a ready lease goes ahead of those that have run dry.
	danger instant
}

// holding is a credential with what the lease needs to know of it.
type holding struct {
	Credential
	account string
	// stamped is IssuedAt before it was made to grow: revocations compare with
	// it.
	stamped time.Time
	// life is its whole lifetime; end and renewAt are on the timeline.
	life         time.Duration
	end, renewAt instant
	// packed is the share of the space for policy and tags, in percent.
	packed int
	// bare: it was resumed, and its secret is the agent's alone.
	bare bool
}

// The window in which a renewal falls, as parts of the lifetime.
const (
	earliest = 0.50
	latest   = 0.65
)

// schedule sets the timeline of a holding that has left until its end.
func (h *holding) schedule(now instant, life, left time.Duration) {
	h.life = life
	h.end = now.add(left)
	h.renewAt = h.end.add(-time.Duration((1 - renewalPoint(h.ID)) * float64(life)))
}

// danger is when less than a third of its life is left, which no credential
// comes to while STS is in reach.
func (h *holding) danger() instant { return h.end.add(-h.life / 3) }

// renewalPoint gives the part of its lifetime after which a credential is
// renewed, uniformly spread. It is drawn once because it follows from the id,
// which is random: no poll, restart or other replica draws again.
func renewalPoint(credentialID string) float64 {
	sum := sha256.Sum256([]byte(credentialID))
	uniform := float64(binary.BigEndian.Uint64(sum[:8])>>11) / (1 << 53)
	return earliest + (latest-earliest)*uniform
}

// under says whether the credential has the terms of the entitlement. A
// location may move to another endpoint without a word of the policy changing.
func (h *holding) under(e Entitlement) bool {
	return h.PolicyHash == e.PolicyHash && h.account == e.Account && samePlace(h.Location, e.Location)
}

func samePlace(a, b storage.Location) bool {
	return a.Bucket == b.Bucket && a.Region == b.Region && a.Endpoint == b.Endpoint && a.KMSKeyARN == b.KMSKeyARN
}

// eligible says whether anything can be issued to the subscriber.
func (s *Subscription) eligible() bool { return s.judged && s.refused == nil && !s.short }

// unserved says whether an eligible subscriber waits for a credential, or for
// an answer of the authority. One with a held credential waits for the history.
func (l *lease) unserved(s *Subscription) bool {
	if !s.allowed {
		return true
	}
	return s.held == nil && (l.cur == nil || s.have != l.cur)
}

// due is when the next attempt is to be made.
func (l *lease) due() instant {
	if l.permanent {
		return never
	}
	at, someone := never, false
	for _, s := range l.subs {
		if !s.eligible() {
			continue
		}
		someone = true
		if l.unserved(s) {
			at = 0
		}
	}
	switch {
	case !someone:
		return never
	case l.cur == nil:
		// Either somebody is unserved, or all are being looked up.
	case l.stale || l.rejected:
		at = 0
	default:
		at = min(at, l.cur.renewAt)
	}
	if at == never {
		return never
	}
	return max(at, l.retryAt)
}

// turn is the place of a lease that is due among those of its account, by when
// its holders run dry. One who waits for a credential is dry since the lease
// became due.
func (l *lease) turn(now instant) standing {
	waited := false
	for _, s := range l.subs {
		waited = waited || s.eligible() && l.unserved(s)
	}
	switch {
	case l.cur == nil:
		return standing{in: &l.account.dry, key: l.dueSince}
	case waited || l.cur.end <= now:
		return standing{in: &l.account.dry, key: min(l.dueSince, l.cur.end)}
	case l.stale || l.rejected:
		return standing{in: &l.account.ready, key: min(l.dueSince, l.cur.end), danger: l.cur.danger()}
	}
	return standing{in: &l.account.ready, key: l.cur.end, danger: l.cur.danger()}
}

// notice is when the holders are to be told that cur has expired.
func (l *lease) notice() instant {
	if l.cur == nil || l.expiryTold {
		return never
	}
	return l.cur.end
}

// fits says whether the subscriber may be given cur now, as far as the lease
// itself can tell: it must be good, and end no later than the certificate.
func (l *lease) fits(s *Subscription, now instant) bool {
	return l.cur != nil && !l.stale && !l.rejected && l.cur.end > now &&
		!l.cur.Expires.After(s.holder.Certificate.NotAfter)
}
