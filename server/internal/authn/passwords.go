package authn

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	mathrand "math/rand/v2"
	"runtime"
	"sync"
	"time"

	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/secret"
)

const (
	// DefaultMemory (KiB) and DefaultPasses are one of OWASP's equal choices
	// for argon2id with one lane.
	DefaultMemory = 19 << 10
	DefaultPasses = 2

	// shortestShed and longestShed bound what a caller is told to wait when
	// the pool is full.
	shortestShed = time.Second
	longestShed  = time.Minute

	// assumedHash is how long a hash takes as long as none was computed.
	assumedHash = 30 * time.Millisecond
)

// PasswordsConfig sizes the hashing of passwords. Zero values mean the
// defaults.
type PasswordsConfig struct {
	// Memory is what one hash uses, in KiB, and Passes how often it goes over
	// it. Less than the default is for tests.
	Memory, Passes uint32
	// Permits is how many hashes are computed at once; default: one a core.
	// Each uses Memory.
	Permits int
	// Queue is how many may wait for a permit; default: 32 a permit, which is
	// under a second. Those beyond are turned away.
	Queue int
}

// Passwords hashes and verifies passwords with argon2id, a bounded number at
// once and a bounded number waiting. It is safe for concurrent use.
type Passwords struct {
	want    storedHash // parameters of new hashes
	permits chan struct{}
	queue   int

	mu      sync.Mutex
	waiting int
	done    uint64
	shed    uint64
	// usual is how long a hash took of late, and nextSlot when the last
	// caller that was turned away may come back.
	usual    time.Duration
	nextSlot time.Time
}

// PoolStats says how busy the pool is.
type PoolStats struct {
	// Running and Waiting are hashes now.
	Running, Waiting int
	// Done counts the hashes computed since the start, and Shed the callers
	// that were turned away.
	Done, Shed uint64
	// Usual is how long one hash takes.
	Usual time.Duration
}

// NewPasswords makes a pool. It refuses parameters that it would not read back
// from a stored hash.
func NewPasswords(cfg PasswordsConfig) (*Passwords, error) {
	if cfg.Memory == 0 {
		cfg.Memory = DefaultMemory
	}
	if cfg.Passes == 0 {
		cfg.Passes = DefaultPasses
	}
	if cfg.Permits <= 0 {
		cfg.Permits = runtime.GOMAXPROCS(0)
	}
	if cfg.Queue <= 0 {
		cfg.Queue = 32 * cfg.Permits
	}
	want := storedHash{memory: cfg.Memory, passes: cfg.Passes, lanes: 1, salt: make([]byte, saltLength), hash: make([]byte, hashLength)}
	if _, err := parseHash(want.String()); err != nil {
		return nil, fmt.Errorf("password hashing with %d KiB and %d passes is out of bounds: use %d KiB and %d passes",
			cfg.Memory, cfg.Passes, DefaultMemory, DefaultPasses)
	}
	return &Passwords{want: want, permits: make(chan struct{}, cfg.Permits), queue: cfg.Queue}, nil
}

// Hash makes the PHC string to store for a password. Like all hashing here it
// answers LOGIN_BUSY, with a time to wait, when the pool is full, and the
// context's error when that ends while waiting. A hash that has begun is
// finished: the permit belongs to the work.
func (p *Passwords) Hash(ctx context.Context, password secret.String) (string, error) {
	fresh := p.want
	fresh.salt = make([]byte, saltLength)
	if _, err := rand.Read(fresh.salt); err != nil {
		return "", fmt.Errorf("draw a salt: %w", err)
	}
	hash, err := p.run(ctx, fresh, password)
	if err != nil {
		return "", err
	}
	fresh.hash = hash
	return fresh.String(), nil
}

// Verify says whether the password is the one that was hashed. A stored hash
// that cannot be read is an error, and costs nothing.
func (p *Passwords) Verify(ctx context.Context, stored string, password secret.String) (bool, error) {
	h, err := parseHash(stored)
	if err != nil {
		return false, err
	}
	hash, err := p.run(ctx, h, password)
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(hash, h.hash) == 1, nil
}

// VerifyUnknown spends what Verify spends on a hash made today, for a login
// that does not exist, so that the time taken does not tell.
func (p *Passwords) VerifyUnknown(ctx context.Context, password secret.String) error {
	_, err := p.run(ctx, p.want, password)
	return err
}

// NeedsRehash says whether the stored hash is weaker than today's, or cannot
// be read.
func (p *Passwords) NeedsRehash(stored string) bool {
	h, err := parseHash(stored)
	return err != nil || h.weakerThan(p.want)
}

// Stats says how busy the pool is.
func (p *Passwords) Stats() PoolStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return PoolStats{Running: len(p.permits), Waiting: p.waiting, Done: p.done, Shed: p.shed, Usual: p.usual}
}

// Pace is how much later each of many callers may come than the one before, for
// none to be turned away.
func (p *Passwords) Pace() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	usual := p.usual
	if usual == 0 {
		usual = assumedHash
	}
	return usual / time.Duration(cap(p.permits))
}

// run computes one hash on the caller's goroutine, under a permit.
func (p *Passwords) run(ctx context.Context, h storedHash, password secret.String) ([]byte, error) {
	if err := p.acquire(ctx); err != nil {
		return nil, err
	}
	defer func() { <-p.permits }()
	plain := []byte(password.Reveal())
	defer clear(plain)
	start := time.Now()
	hash := h.derive(plain)
	p.took(time.Since(start))
	return hash, nil
}

func (p *Passwords) acquire(ctx context.Context) error {
	select {
	case p.permits <- struct{}{}:
		return nil
	default:
	}
	if err := p.enqueue(); err != nil {
		return err
	}
	defer p.dequeue()
	select {
	case p.permits <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// enqueue takes a place in the queue or says when to come back. Those turned
// away are given successive slots at the pace of the pool, so that a storm of
// them does not come back as one.
func (p *Passwords) enqueue() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting < p.queue {
		p.waiting++
		return nil
	}
	p.shed++
	now := time.Now()
	if earliest := now.Add(shortestShed); p.nextSlot.Before(earliest) {
		p.nextSlot = earliest
	}
	wait := p.nextSlot.Sub(now)
	p.nextSlot = p.nextSlot.Add(p.usual / time.Duration(cap(p.permits)))
	if wait > longestShed {
		p.nextSlot = now.Add(longestShed)
		wait = longestShed - mathrand.N(longestShed/2)
	}
	return reason.New(reason.LoginBusy, "the broker checks as many passwords as it can; wait as told").After(wait)
}

func (p *Passwords) dequeue() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting--
}

// took counts a hash and keeps a moving average of the time.
func (p *Passwords) took(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done++
	if p.usual == 0 {
		p.usual = d
	}
	p.usual += (d - p.usual) / 8
}
