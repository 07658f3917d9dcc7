package enrollment_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/stokerd/stoker/internal/jointoken"
	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/directory"
	"github.com/stokerd/stoker/server/internal/enrollment"
	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
	"github.com/stokerd/stoker/server/internal/storage/sqlite"
)

const peer = "192.0.2.7:4711"

// trail lets a test make the audit trail fail.
type trail struct {
	*audit.Trail
	err error
}

func (t *trail) Append(ctx context.Context, rec storage.AuditRecord, fence int64) (storage.AuditRecord, error) {
	if t.err != nil {
		return storage.AuditRecord{}, t.err
	}
	return t.Trail.Append(ctx, rec, fence)
}

type bench struct {
	store     *sqlite.Store
	authority *pki.Authority
	trail     *trail
	desk      *enrollment.Desk
	tenant    storage.Tenant
	agent     storage.Agent
}

func id() string { return uuid.Must(uuid.NewV7()).String() }

func setUp(t *testing.T) *bench {
	t.Helper()
	ctx := t.Context()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	store, err := sqlite.Open(ctx, filepath.Join(t.TempDir(), "db"), log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	tenant, err := store.CreateTenant(ctx, storage.Tenant{Meta: storage.Meta{ID: id()}, Name: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	agent, err := store.CreateAgent(ctx, storage.Agent{Meta: storage.Meta{ID: id()}, TenantID: tenant.ID, Name: "laptop"})
	if err != nil {
		t.Fatal(err)
	}
	d, err := directory.Open(ctx, store, log)
	if err != nil {
		t.Fatal(err)
	}
	following, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); _ = d.Run(following) }()
	t.Cleanup(func() { stop(); <-done })
	chain, err := audit.Open(ctx, store, secret.New(strings.Repeat("k", 32)), audit.Options{Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = chain.Close(context.Background()) })
	authority, err := pki.NewAuthority("test.example", nil)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{store: store, authority: authority, trail: &trail{Trail: chain}, tenant: tenant, agent: agent}
	b.desk = enrollment.New(enrollment.Config{
		Authority: authority, Directory: d, Tokens: store, Certificates: store, Trail: b.trail, Lifetime: 24 * time.Hour, Log: log,
	})
	return b
}

// invite stores an invitation and gives its token.
func (b *bench) invite(t *testing.T, change func(*storage.JoinToken)) secret.String {
	t.Helper()
	token, err := jointoken.New(b.authority.Pin())
	if err != nil {
		t.Fatal(err)
	}
	invited := storage.JoinToken{
		ID: token.ID(), Hash: token.Hash(), TenantID: b.tenant.ID, AgentName: b.agent.Name, CreatedBy: "alice",
		CreatedAt: time.Now(), Expires: time.Now().Add(10 * time.Minute),
	}
	if change != nil {
		change(&invited)
	}
	if err := b.store.CreateJoinToken(t.Context(), invited); err != nil {
		t.Fatal(err)
	}
	return secret.New(token.Reveal())
}

func request(t *testing.T) []byte {
	t.Helper()
	_, der, err := pki.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func (b *bench) records(t *testing.T, event audit.Event) []storage.AuditRecord {
	t.Helper()
	list, err := b.store.ListAudit(t.Context(), storage.AuditFilter{Events: []string{string(event)}}, nil, 100)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestEnroll(t *testing.T) {
	b := setUp(t)
	got, err := b.desk.Enroll(t.Context(), b.invite(t, nil), request(t), peer, "r1")
	if err != nil {
		t.Fatal(err)
	}
	certs, err := pki.ParseCertificates(got.PEM)
	if err != nil {
		t.Fatal(err)
	}
	who, err := authn.Identify("test.example", certs[0])
	if err != nil || who.Tenant != "acme" || who.Agent != "laptop" || got.SPIFFEID != "spiffe://test.example/tenant/acme/agent/laptop" {
		t.Errorf("the certificate is for %+v (%v)", who, err)
	}
	if life := time.Until(got.NotAfter); life > 24*time.Hour || life < 23*time.Hour {
		t.Errorf("the certificate lives %v", life)
	}
	listed, err := b.store.CertificatesOf(t.Context(), b.agent.ID)
	if err != nil || len(listed) != 1 || listed[0].Serial != got.Serial {
		t.Errorf("certificates %+v (%v)", listed, err)
	}
	recs := b.records(t, audit.AgentEnrolled)
	if len(recs) != 1 || recs[0].CertificateSerial != got.Serial || recs[0].Peer != peer || recs[0].Agent != "laptop" || recs[0].RequestID != "r1" {
		t.Errorf("records %+v", recs)
	}
}

func TestATokenServesOnce(t *testing.T) {
	b := setUp(t)
	token := b.invite(t, nil)
	const callers = 8
	var wg sync.WaitGroup
	errs := make([]error, callers)
	for i := range callers {
		der := request(t)
		wg.Go(func() { _, errs[i] = b.desk.Enroll(t.Context(), token, der, peer, "r") })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !reason.Is(err, reason.JoinTokenUsed) {
			t.Errorf("a loser got %v", err)
		}
	}
	if won != 1 {
		t.Errorf("%d callers enrolled with one token", won)
	}
	if got := len(b.records(t, audit.AgentRefused)); got != callers-1 {
		t.Errorf("%d refusals recorded", got)
	}
}

func TestEnrollRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		token func(t *testing.T, b *bench) secret.String
		want  reason.Reason
	}{
		"garbage": {func(*testing.T, *bench) secret.String { return secret.New("stoker-join.x.y.z") }, reason.JoinTokenInvalid},
		"huge":    {func(*testing.T, *bench) secret.String { return secret.New(strings.Repeat("a", 1<<20)) }, reason.JoinTokenInvalid},
		"empty":   {func(*testing.T, *bench) secret.String { return secret.String{} }, reason.JoinTokenInvalid},
		"unknown": {func(t *testing.T, b *bench) secret.String {
			token, err := jointoken.New(b.authority.Pin())
			if err != nil {
				t.Fatal(err)
			}
			return secret.New(token.Reveal())
		}, reason.JoinTokenInvalid},
		"wrong secret": {func(t *testing.T, b *bench) secret.String {
			return b.invite(t, func(j *storage.JoinToken) { j.Hash = make([]byte, 32) })
		}, reason.JoinTokenInvalid},
		"expired": {func(t *testing.T, b *bench) secret.String {
			return b.invite(t, func(j *storage.JoinToken) { j.Expires = time.Now().Add(-time.Second) })
		}, reason.JoinTokenExpired},
		"used": {func(t *testing.T, b *bench) secret.String {
			token := b.invite(t, nil)
			if _, err := b.desk.Enroll(t.Context(), token, request(t), peer, "r"); err != nil {
				t.Fatal(err)
			}
			return token
		}, reason.JoinTokenUsed},
		"agent gone": {func(t *testing.T, b *bench) secret.String {
			return b.invite(t, func(j *storage.JoinToken) { j.AgentName = "nobody" })
		}, reason.AgentUnknown},
		"agent disabled": {func(t *testing.T, b *bench) secret.String {
			a := b.agent
			a.Disabled = true
			if _, err := b.store.UpdateAgent(t.Context(), a); err != nil {
				t.Fatal(err)
			}
			return b.invite(t, nil)
		}, reason.AgentDisabled},
		"tenant disabled": {func(t *testing.T, b *bench) secret.String {
			tenant := b.tenant
			tenant.Disabled = true
			if _, err := b.store.UpdateTenant(t.Context(), tenant); err != nil {
				t.Fatal(err)
			}
			return b.invite(t, nil)
		}, reason.TenantDisabled},
	} {
		t.Run(name, func(t *testing.T) {
			b := setUp(t)
			token := c.token(t, b)
			got, err := b.desk.Enroll(t.Context(), token, request(t), peer, "r")
			if !reason.Is(err, c.want) || got.PEM != nil {
				t.Fatalf("got %v and %d bytes, want %s", err, len(got.PEM), c.want)
			}
			if text := token.Reveal(); len(text) > 60 && strings.Contains(err.Error(), text[40:60]) {
				t.Error("the error repeats the token")
			}
			recs := b.records(t, audit.AgentRefused)
			if len(recs) != 1 || recs[0].Reason != string(c.want) {
				t.Errorf("records %+v", recs)
			}
		})
	}
}

func TestABadRequestDoesNotBurnTheToken(t *testing.T) {
	b := setUp(t)
	token := b.invite(t, nil)
	if _, err := b.desk.Enroll(t.Context(), token, []byte("not a request"), peer, "r"); !reason.Is(err, reason.RequestUnsigned) {
		t.Fatalf("a bad request: %v", err)
	}
	if _, err := b.desk.Enroll(t.Context(), token, request(t), peer, "r"); err != nil {
		t.Errorf("the token was burned: %v", err)
	}
}

func TestADisabledAgentDoesNotBurnTheToken(t *testing.T) {
	b := setUp(t)
	token := b.invite(t, nil)
	b.agent.Disabled = true
	disabled, err := b.store.UpdateAgent(t.Context(), b.agent)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.desk.Enroll(t.Context(), token, request(t), peer, "r"); !reason.Is(err, reason.AgentDisabled) {
		t.Fatalf("a disabled agent: %v", err)
	}
	disabled.Disabled = false
	if _, err := b.store.UpdateAgent(t.Context(), disabled); err != nil {
		t.Fatal(err)
	}
	if _, err := b.desk.Enroll(t.Context(), token, request(t), peer, "r"); err != nil {
		t.Errorf("the token was burned: %v", err)
	}
}

// raced replaces the agent by another of its name at one moment of an
// enrollment.
type raced struct {
	*sqlite.Store
	at      string
	replace func()
}

func (r *raced) UseJoinToken(ctx context.Context, id string, at time.Time) error {
	if r.at == "use" {
		r.replace()
	}
	return r.Store.UseJoinToken(ctx, id, at)
}

func (r *raced) RecordCertificate(ctx context.Context, c storage.Certificate) (storage.Certificate, error) {
	if r.at == "record" {
		r.replace()
	}
	return r.Store.RecordCertificate(ctx, c)
}

// An agent that is replaced during its enrollment, or while it renews its
// certificate, gives its successor nothing.
func TestReplacedMeanwhile(t *testing.T) {
	for _, at := range []string{"use", "record"} {
		t.Run(at, func(t *testing.T) {
			b := setUp(t)
			successor := storage.Agent{Meta: storage.Meta{ID: id()}, TenantID: b.tenant.ID, Name: b.agent.Name}
			r := &raced{Store: b.store, at: at, replace: func() {
				if err := b.store.DeleteAgent(t.Context(), b.agent.ID, 0); err != nil {
					t.Error(err)
				}
				if _, err := b.store.CreateAgent(t.Context(), successor); err != nil {
					t.Error(err)
				}
			}}
			b.desk.Tokens, b.desk.Certificates = r, r
			got, err := b.desk.Enroll(t.Context(), b.invite(t, nil), request(t), peer, "r")
			if !reason.Is(err, reason.AgentUnknown) || got.PEM != nil {
				t.Errorf("got %v and %d bytes", err, len(got.PEM))
			}
			if listed, err := b.store.CertificatesOf(t.Context(), successor.ID); err != nil || len(listed) > 0 {
				t.Errorf("the successor has %+v (%v)", listed, err)
			}
			if recs := b.records(t, audit.AgentRefused); len(recs) != 1 || recs[0].Reason != string(reason.AgentUnknown) {
				t.Errorf("records %+v", recs)
			}
			p := authn.Principal{Peer: authn.Peer{Kind: authn.Agent, Tenant: "acme", Agent: "laptop"}, TenantID: b.tenant.ID, AgentID: b.agent.ID}
			r.at = ""
			if got, err := b.desk.Renew(t.Context(), p, request(t), "r"); !reason.Is(err, reason.AgentUnknown) || got.PEM != nil {
				t.Errorf("renewed for a deleted agent: %v", err)
			}
		})
	}
}

func TestNoCertificateLeavesWithoutItsRecord(t *testing.T) {
	b := setUp(t)
	token := b.invite(t, nil)
	b.trail.err = reason.New(reason.AuditUnavailable, "full").Because(errors.New("disk full"))
	got, err := b.desk.Enroll(t.Context(), token, request(t), peer, "r")
	if !reason.Is(err, reason.AuditUnavailable) || got.PEM != nil {
		t.Errorf("got %v and %d bytes", err, len(got.PEM))
	}
}

func TestRenew(t *testing.T) {
	b := setUp(t)
	p := authn.Principal{
		Peer:     authn.Peer{Kind: authn.Agent, Tenant: "acme", Agent: "laptop", Certificate: authn.Certificate{Serial: "0a", ID: "spiffe://x"}},
		TenantID: b.tenant.ID, AgentID: b.agent.ID,
	}
	got, err := b.desk.Renew(t.Context(), p, request(t), "r2")
	if err != nil {
		t.Fatal(err)
	}
	recs := b.records(t, audit.CertificateRenewed)
	if len(recs) != 1 || recs[0].Detail["previous_serial"] != "0a" || recs[0].CertificateSerial != got.Serial {
		t.Errorf("records %+v", recs)
	}
	if _, err := b.desk.Renew(t.Context(), p, nil, "r"); !reason.Is(err, reason.RequestUnsigned) {
		t.Errorf("an empty request: %v", err)
	}
	operator := authn.Principal{Peer: authn.Peer{Kind: authn.Operator, Name: "alice"}}
	if _, err := b.desk.Renew(t.Context(), operator, request(t), "r"); !reason.Is(err, reason.CallNotAllowed) {
		t.Errorf("an operator: %v", err)
	}
}

// A certificate that was revoked at the moment of its renewal is not renewed,
// and what was renewed from it before is revoked with it.
func TestRenewOfWhatIsRevoked(t *testing.T) {
	b := setUp(t)
	first, err := b.desk.Enroll(t.Context(), b.invite(t, nil), request(t), peer, "r1")
	if err != nil {
		t.Fatal(err)
	}
	p := authn.Principal{
		Peer:     authn.Peer{Kind: authn.Agent, Tenant: "acme", Agent: "laptop", Certificate: authn.Certificate{Serial: first.Serial, ID: first.SPIFFEID}},
		TenantID: b.tenant.ID, AgentID: b.agent.ID,
	}
	if _, err := b.desk.Renew(t.Context(), p, request(t), "the thief's"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.store.RevokeCertificate(t.Context(), storage.Certificate{Serial: first.Serial, RevocationReason: "stolen"}); err != nil {
		t.Fatal(err)
	}
	listed, err := b.store.CertificatesOf(t.Context(), b.agent.ID)
	if err != nil || len(listed) != 2 {
		t.Fatalf("%d certificates, %v", len(listed), err)
	}
	for _, c := range listed {
		if c.RevokedAt.IsZero() {
			t.Errorf("%s outlives the one that it was renewed from", c.Serial)
		}
	}
	if _, err := b.desk.Renew(t.Context(), p, request(t), "r3"); !reason.Is(err, reason.CertificateRevoked) {
		t.Errorf("got %v", err)
	}
	if recs := b.records(t, audit.CertificateRefused); len(recs) != 1 || recs[0].Reason != "CERTIFICATE_REVOKED" || recs[0].RequestID != "r3" {
		t.Errorf("records %+v", recs)
	}
}

// Strangers cannot fill the audit trail: most of their refusals are recorded in
// sum. Who has a real token is always recorded.
func TestStrangersAreRecordedInSum(t *testing.T) {
	b := setUp(t)
	for i := range 200 {
		from := fmt.Sprintf("192.0.2.%d:4711", i%20)
		_, err := b.desk.Enroll(t.Context(), secret.New("stoker-join-nonsense"), request(t), from, "r")
		if !reason.Is(err, reason.JoinTokenInvalid) {
			t.Fatal(err)
		}
	}
	expired := b.invite(t, func(j *storage.JoinToken) { j.Expires = time.Now().Add(-time.Second) })
	if _, err := b.desk.Enroll(t.Context(), expired, request(t), "198.51.100.1:1", "r"); !reason.Is(err, reason.JoinTokenExpired) {
		t.Fatal(err)
	}
	if recs := b.records(t, audit.AgentRefused); len(recs) != 61 || recs[60].Reason != "JOIN_TOKEN_EXPIRED" {
		t.Errorf("%d records before the sum", len(recs))
	}
	b.desk.Close(t.Context())
	recs := b.records(t, audit.AgentRefused)
	if len(recs) != 62 {
		t.Fatalf("%d records", len(recs))
	}
	sum := recs[61]
	if sum.Detail["unrecorded"] != "140" || sum.Detail["addresses"] != "20" || sum.Detail["reason.JOIN_TOKEN_INVALID"] != "140" ||
		sum.Detail["address.192.0.2.10"] != "7" || sum.Detail["first"] == "" || sum.Detail["last"] == "" {
		t.Errorf("the sum is %v", sum.Detail)
	}
}

func TestLimits(t *testing.T) {
	b := setUp(t)
	garbage := secret.New("x")
	limited := 0
	for range 30 {
		_, err := b.desk.Enroll(t.Context(), garbage, request(t), peer, "r")
		if reason.Is(err, reason.RateLimited) {
			limited++
			var e *reason.Error
			if !errors.As(err, &e) || e.RetryAfter <= 0 {
				t.Errorf("no time to wait in %v", err)
			}
		}
	}
	if limited == 0 {
		t.Error("an address may ask without limit")
	}
	if _, err := b.desk.Enroll(t.Context(), b.invite(t, nil), request(t), "198.51.100.9:1", "r"); err != nil {
		t.Errorf("another address is limited too: %v", err)
	}
	// Of IPv6 whoever has one address has a whole network of them.
	limited = 0
	for i := range 30 {
		_, err := b.desk.Enroll(t.Context(), garbage, request(t), fmt.Sprintf("[2001:db8:0:1::%x]:4711", i), "r")
		if reason.Is(err, reason.RateLimited) {
			limited++
		}
	}
	if limited == 0 {
		t.Error("an IPv6 network may ask without limit")
	}
	if _, err := b.desk.Enroll(t.Context(), garbage, request(t), "[2001:db8:0:2::1]:4711", "r"); reason.Is(err, reason.RateLimited) {
		t.Errorf("another network is limited too: %v", err)
	}
	p := authn.Principal{Peer: authn.Peer{Kind: authn.Agent, Tenant: "acme", Agent: "laptop"}, TenantID: b.tenant.ID, AgentID: b.agent.ID}
	var last error
	for range 10 {
		_, last = b.desk.Renew(t.Context(), p, request(t), "r")
	}
	if !reason.Is(last, reason.RateLimited) {
		t.Errorf("an agent renews without limit: %v", last)
	}
}

func TestWithoutAnAuthority(t *testing.T) {
	desk := enrollment.New(enrollment.Config{Log: slog.New(slog.DiscardHandler)})
	if _, err := desk.Enroll(t.Context(), secret.New("x"), nil, peer, "r"); !reason.Is(err, reason.NoAuthority) {
		t.Errorf("Enroll: %v", err)
	}
	if _, err := desk.Renew(t.Context(), authn.Principal{}, nil, "r"); !reason.Is(err, reason.NoAuthority) {
		t.Errorf("Renew: %v", err)
	}
}
