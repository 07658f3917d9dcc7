package lease

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/issuer"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
)

// fakeSTS issues at once unless told otherwise.
type fakeSTS struct {
	mu sync.Mutex
	// fail decides about each call; nil error issues.
	fail func(ctx context.Context, r issuer.Request) error
	// latency is how long each call takes.
	latency time.Duration
	// ahead is how far STS's clock is ahead of true time.
	ahead time.Duration
	// shorten makes credentials live less long than asked for.
	shorten time.Duration
	// wall is the broker's clock, for IssuedAt; nil: true time.
	wall  func() time.Time
	calls []call
	// flying counts calls in progress, most the highest number of them.
	flying, most int
}

type call struct {
	at      time.Time
	request issuer.Request
	err     error
}

func newSTS() *fakeSTS { return &fakeSTS{} }

func (s *fakeSTS) Issue(ctx context.Context, r issuer.Request) (issuer.Credential, error) {
	s.mu.Lock()
	s.calls = append(s.calls, call{at: time.Now(), request: r})
	n, fail, latency := len(s.calls), s.fail, s.latency
	s.flying++
	s.most = max(s.most, s.flying)
	issued := time.Now()
	if s.wall != nil {
		issued = s.wall()
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.flying--
		s.mu.Unlock()
	}()
	if latency > 0 {
		select {
		case <-time.After(latency):
		case <-ctx.Done():
			return issuer.Credential{}, &issuer.Error{Kind: issuer.Transient, Code: issuer.CodeCanceled, Message: ctx.Err().Error()}
		}
	}
	if fail != nil {
		if err := fail(ctx, r); err != nil {
			s.mu.Lock()
			s.calls[n-1].err = err
			s.mu.Unlock()
			return issuer.Credential{}, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return issuer.Credential{
		AccessKeyID:     fmt.Sprintf("ASIA%08d", n),
		SecretAccessKey: secret.New("hush"), SessionToken: secret.New("hush hush"),
		IssuedAt: issued.Round(0).UTC(), Expires: time.Now().Add(s.ahead + r.Duration - s.shorten).Round(0).UTC(),
		PackedPolicySize: 12,
	}, nil
}

// set changes the fake under its lock.
func (s *fakeSTS) set(change func(*fakeSTS)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

// failing makes every call fail; nil ends that.
func (s *fakeSTS) failing(err error) {
	s.set(func(s *fakeSTS) {
		s.fail = nil
		if err != nil {
			s.fail = func(context.Context, issuer.Request) error { return err }
		}
	})
}

func (s *fakeSTS) made() []call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

func (s *fakeSTS) count() int { return len(s.made()) }

var (
	errDown      = &issuer.Error{Kind: issuer.Transient, Code: issuer.CodeUnreachable, Message: "no route"}
	errThrottled = &issuer.Error{Kind: issuer.Throttled, Code: "Throttling", Message: "slow down"}
	errDenied    = &issuer.Error{Kind: issuer.Permanent, Code: "AccessDenied", Message: "not authorized"}
)

// fakeAuthority entitles everybody to every grant it knows, except whom it was
// told to deny.
type fakeAuthority struct {
	world *world
	mu    sync.Mutex
	// applied is what the answers include, committed what the trail compares
	// fences with; Sync makes them equal.
	applied, committed int64
	grants             map[string]Entitlement
	// denied has the reason by "kind:id", such as "agent:a1".
	denied      map[string]*reason.Error
	revoked     map[string]bool // credential ids
	revocations map[string]storage.Revocation
	serials     map[string]string // revoked certificates by storage id
	syncErr     error
	entitled    int
	onEntitle   func(Holder)
	// onRevoked runs when an answer of Revoked is on its way.
	onRevoked func(credentialID string)
}

func newAuthority(w *world) *fakeAuthority {
	a := &fakeAuthority{
		world: w, grants: map[string]Entitlement{}, denied: map[string]*reason.Error{},
		revoked: map[string]bool{}, revocations: map[string]storage.Revocation{}, serials: map[string]string{},
	}
	a.addGrant("g1", "main", hour)
	a.addGrant("g2", "main", hour)
	return a
}

// addGrant adds a grant of the tenant at a location of its own account.
func (a *fakeAuthority) addGrant(id, account string, lifetime time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.grants[id] = Entitlement{
		Grant: storage.Grant{
			Meta: storage.Meta{ID: id}, TenantID: "t1", Name: "grant-" + id, Prefix: "acme/" + id + "/",
			Access: "backup", Lifetime: lifetime, LocationID: "loc-" + account,
		},
		Location: storage.Location{Meta: storage.Meta{ID: "loc-" + account}, Account: account, Bucket: "bucket", Region: "eu-central-1"},
		Account:  account, Policy: `{"Statement":[{"` + id + `":1}]}`, PolicyHash: "hash-" + id,
	}
}

// alter changes a grant, as of the next change of the feed.
func (a *fakeAuthority) alter(id string, change func(*Entitlement)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := a.grants[id]
	change(&e)
	a.grants[id] = e
	a.committed++
	a.applied = a.committed
}

// deny refuses "kind:id" from the next change on; a nil reason ends that.
func (a *fakeAuthority) deny(what string, why *reason.Error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if why == nil {
		delete(a.denied, what)
	} else {
		a.denied[what] = why
	}
	a.committed++
	a.applied = a.committed
}

// revoke revokes one credential and gives the revocation's id.
func (a *fakeAuthority) revoke(credentialID string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.revoked[credentialID] = true
	a.committed++
	a.applied = a.committed
	id := fmt.Sprintf("r%d", a.committed)
	a.revocations[id] = storage.Revocation{Meta: storage.Meta{ID: id}, TenantID: "t1", TargetKind: "credential", TargetID: credentialID}
	return id
}

// revokeSilently revokes the credential of a record, as of long ago.
func (a *fakeAuthority) revokeSilently(rec storage.AuditRecord) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.revoked[rec.CredentialID] = true
}

func (a *fakeAuthority) head() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.committed
}

func (a *fakeAuthority) Entitle(h Holder, grantID string) (Entitlement, error) {
	a.mu.Lock()
	hook := a.onEntitle
	a.mu.Unlock()
	if hook != nil {
		hook(h)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.entitled++
	fence := a.applied
	for _, what := range []string{
		"tenant:" + h.TenantID, "user:" + h.UserID, "agent:" + h.AgentID, "grant:" + grantID,
		"serial:" + h.Certificate.Serial, "session:" + h.SessionID,
	} {
		if why := a.denied[what]; why != nil {
			return Entitlement{}, why
		}
	}
	if !h.Certificate.NotAfter.After(a.world.wall()) {
		return Entitlement{}, reason.New(reason.CertificateExpired, "expired")
	}
	e, ok := a.grants[grantID]
	if !ok {
		return Entitlement{}, reason.New(reason.GrantUnknown, "no such grant")
	}
	e.Fence = fence
	return e, nil
}

func (a *fakeAuthority) Revoked(_ Holder, _, credentialID string, _ time.Time) bool {
	a.mu.Lock()
	revoked, hook := a.revoked[credentialID], a.onRevoked
	a.mu.Unlock()
	if hook != nil {
		hook(credentialID)
	}
	return revoked
}

func (a *fakeAuthority) RevokedSerial(id string) (string, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	serial, ok := a.serials[id]
	return serial, ok
}

func (a *fakeAuthority) Revocation(id string) (storage.Revocation, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r, ok := a.revocations[id]
	return r, ok
}

func (a *fakeAuthority) Sync(context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.syncErr != nil {
		return a.syncErr
	}
	a.applied = a.committed
	return nil
}

// fakeTrail keeps records, and is the history too.
type fakeTrail struct {
	world *world
	mu    sync.Mutex
	// down fails every append and, unless blind, shows in Healthy.
	down  error
	blind bool
	// onAppend runs before each append, without the lock.
	onAppend func(storage.AuditRecord)
	records  []storage.AuditRecord
	appends  int

	// lost fails look-ups, slow delays them.
	lost error
	slow time.Duration
	// wrong, if set, is what look-ups find.
	wrong   *storage.AuditRecord
	lookups int
	looking int
	most    int
}

func (f *fakeTrail) Append(ctx context.Context, rec storage.AuditRecord, fence int64) (storage.AuditRecord, error) {
	f.mu.Lock()
	hook := f.onAppend
	f.mu.Unlock()
	if hook != nil {
		hook(rec)
	}
	if err := ctx.Err(); err != nil {
		return rec, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.appends++
	if f.down != nil {
		return rec, f.down
	}
	if fence != audit.NoFence && f.world.authority.head() > fence {
		return rec, audit.ErrStale
	}
	rec.Time = time.Now().UTC()
	rec.Detail = maps.Clone(rec.Detail)
	f.records = append(f.records, rec)
	return rec, nil
}

func (f *fakeTrail) Healthy() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.blind {
		return nil
	}
	return f.down
}

func (f *fakeTrail) FindIssue(ctx context.Context, id string) (storage.AuditRecord, error) {
	f.mu.Lock()
	f.lookups++
	f.looking++
	f.most = max(f.most, f.looking)
	slow := f.slow
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.looking--
		f.mu.Unlock()
	}()
	if slow > 0 {
		select {
		case <-time.After(slow):
		case <-ctx.Done():
			return storage.AuditRecord{}, ctx.Err()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lost != nil {
		return storage.AuditRecord{}, f.lost
	}
	if f.wrong != nil {
		return *f.wrong, nil
	}
	for _, r := range f.records {
		if r.CredentialID == id && (r.Event == string(audit.CredentialIssued) || r.Event == string(audit.CredentialRenewed)) {
			return r, nil
		}
	}
	return storage.AuditRecord{}, fmt.Errorf("no issue of %q: %w", id, storage.ErrNotFound)
}

// set changes the fake under its lock.
func (f *fakeTrail) set(change func(*fakeTrail)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

// of gives the records of an event.
func (f *fakeTrail) of(event audit.Event) []storage.AuditRecord {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []storage.AuditRecord
	for _, r := range f.records {
		if r.Event == string(event) {
			out = append(out, r)
		}
	}
	return out
}

// has says whether the credential's issue is durable.
func (f *fakeTrail) has(credentialID string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.records, func(r storage.AuditRecord) bool { return r.CredentialID == credentialID })
}

var errDiskFull = errors.New("no space left on device")
