package server_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	stoker "github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/internal/jointoken"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server"
	"github.com/stokerd/stoker/server/internal/brokertest"
	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
	"github.com/stokerd/stoker/server/internal/storage/sqlite"
)

// enrolling starts a broker at which new agents enroll.
func enrolling(t *testing.T) *brokertest.Broker {
	t.Helper()
	return site(t, brokertest.Options{Configure: func(c *server.Config) {
		c.Enrollment = &server.EnrollmentConfig{Listen: "127.0.0.1:0"}
	}})
}

// invite makes a join token.
func invite(t *testing.T, b *brokertest.Broker, tenant, name string) string {
	t.Helper()
	invited, err := stokerv1.NewAgentServiceClient(b.Admin).InviteAgent(t.Context(), &stokerv1.InviteAgentRequest{Tenant: tenant, Name: name})
	wantOK(t, err)
	return invited.GetJoinToken()
}

// enrollment is where a new agent enrolls, into a directory of its own.
func enrollment(t *testing.T, b *brokertest.Broker) stoker.EnrollConfig {
	t.Helper()
	return stoker.EnrollConfig{Address: b.Server.EnrollmentAddr().String(), Files: stoker.FilesIn(t.TempDir())}
}

// install writes a certificate in the place of another, as an administrator
// does.
func install(t *testing.T, files stoker.Files, cert tls.Certificate) {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	wantOK(t, err)
	wantOK(t, errors.Join(
		pki.WriteFile(files.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600),
		pki.WriteFile(files.Certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}), 0o644),
	))
}

// embedded is an agent as a backup product embeds it, renewing its certificate.
type embedded struct {
	*stoker.Source
	t testing.TB

	mu      sync.Mutex
	events  []stoker.Event
	changed chan struct{}
}

func embed(t *testing.T, b *brokertest.Broker, a agent, files stoker.Files) *embedded {
	t.Helper()
	source, err := stoker.New(t.Context(), stoker.Config{
		ServerName: "localhost",
		Brokers:    []string{b.Addr}, CAFile: files.Authority, CertFile: files.Certificate, KeyFile: files.Key, Renew: true,
		Login: a.login + "@" + a.tenant, Password: func(context.Context) (string, error) { return a.password, nil },
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	wantOK(t, err)
	t.Cleanup(func() { _ = source.Close() })
	e := &embedded{Source: source, t: t, changed: make(chan struct{}, 1)}
	source.Watch(func(event stoker.Event) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.events = append(e.events, event)
		select {
		case e.changed <- struct{}{}:
		default:
		}
	})
	return e
}

// until waits until an event so far is the wanted one.
func (e *embedded) until(what string, want func(stoker.Event) bool) stoker.Event {
	e.t.Helper()
	deadline := time.After(patience)
	for seen := 0; ; {
		e.mu.Lock()
		events := e.events[seen:]
		e.mu.Unlock()
		for _, event := range events {
			if want(event) {
				return event
			}
		}
		seen += len(events)
		select {
		case <-e.changed:
		case <-deadline:
			e.t.Fatalf("no %s in %s", what, patience)
		}
	}
}

// count counts events.
func (e *embedded) count(kind stoker.EventKind) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, event := range e.events {
		if event.Kind == kind {
			n++
		}
	}
	return n
}

// supplied checks all the time that there is a credential, until stop is called.
func (e *embedded) supplied(ctx context.Context) (stop func()) {
	e.t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	var checking sync.WaitGroup
	checking.Go(func() {
		for ctx.Err() == nil {
			if _, err := e.Credential("nightly"); err != nil {
				e.t.Errorf("a gap: %v", err)
				return
			}
		}
	})
	return func() { cancel(); checking.Wait() }
}

// An operator invites, the agent enrolls and connects; its certificate is renewed
// in time, and the stream goes on with the new one: no gap, no credential more
// than before, none that outlives its certificate.
func TestEnrollConnectRenew(t *testing.T) {
	b := enrolling(t)
	acme := join(t, b, "acme", time.Hour)
	acme.name = "nas"
	config := enrollment(t, b)
	got, err := stoker.Enroll(t.Context(), invite(t, b, "acme", "nas"), config)
	wantOK(t, err)
	if got.SPIFFEID != "spiffe://"+brokertest.TrustDomain+"/tenant/acme/agent/nas" || time.Until(got.Expires) < 719*time.Hour {
		t.Errorf("enrolled as %v", got)
	}
	if r := records(t, b, "agent.enrolled", "acme", "nas"); len(r) != 1 || r[0].GetCertificateSerial() != got.Serial {
		t.Errorf("records %v", r)
	}

	// In the place of that one, a certificate of which a minute is left.
	short := b.SignAgent("acme", "nas", time.Minute)
	install(t, config.Files, short)
	e := embed(t, b, acme, config.Files)
	wantOK(t, e.Wait(t.Context(), "nightly"))
	stop := e.supplied(t.Context())
	first, err := e.Credential("nightly")
	wantOK(t, err)
	renewed := e.until("renewal", func(event stoker.Event) bool { return event.Kind == stoker.EventCertificate && event.Err == nil })
	serial := renewed.Certificate.Serial
	if renewed.Certificate.SPIFFEID != got.SPIFFEID || time.Until(renewed.Certificate.Expires) < 719*time.Hour {
		t.Errorf("renewed as %v", renewed.Certificate)
	}
	e.until("stream with the new certificate", func(event stoker.Event) bool {
		return event.Kind == stoker.EventConnected && event.Identity.CertificateSerial == serial
	})
	if first.Expires.After(brokertest.Leaf(short).NotAfter) {
		t.Errorf("a credential ends at %v, its certificate at %v", first.Expires, brokertest.Leaf(short).NotAfter)
	}
	// What the first one was resumed for is decided once another change has come
	// through. That credential may live longer than the old certificate.
	issued := len(b.STS.Issued())
	setAccess(t, b, acme, stokerv1.Access_ACCESS_RESTORE)
	next := e.until("credential under the new terms", func(event stoker.Event) bool {
		return event.Kind == stoker.EventCredential && event.Credential.Access == "restore"
	}).Credential
	stop()
	if issued != 1 || len(b.STS.Issued()) != 2 || e.count(stoker.EventCredential) != 2 {
		t.Errorf("%d credentials issued until the change, %d in all, %d sent", issued, len(b.STS.Issued()), e.count(stoker.EventCredential))
	}
	if time.Until(next.Expires) < 50*time.Minute {
		t.Errorf("the next one ends at %v", next.Expires)
	}
	if n := e.count(stoker.EventDisconnected) + e.count(stoker.EventRevocation); n != 0 {
		t.Errorf("disconnected or revoked %d times", n)
	}
	if r := records(t, b, "certificate.renewed", "acme", "nas"); len(r) != 1 || r[0].GetCertificateSerial() != serial ||
		r[0].GetDetail()["previous_serial"] != pki.Serial(brokertest.Leaf(short)) {
		t.Errorf("records %v", r)
	}
	if r := records(t, b, "session.created", "acme", "nas"); len(r) != 2 {
		t.Errorf("logins %v", r)
	}
}

// expired stores an invitation that is over, as no broker would for some minutes.
func expired(t *testing.T, b *brokertest.Broker, tenant, name string) string {
	t.Helper()
	token, err := jointoken.New(b.Authority().Pin())
	wantOK(t, err)
	store, err := sqlite.Open(t.Context(), b.Config.Storage.SQLite, slog.New(slog.DiscardHandler))
	wantOK(t, err)
	found, err := stokerv1.NewTenantServiceClient(b.Admin).GetTenant(t.Context(), &stokerv1.GetTenantRequest{Name: tenant})
	wantOK(t, err)
	wantOK(t, errors.Join(store.CreateJoinToken(t.Context(), storage.JoinToken{
		ID: token.ID(), Hash: token.Hash(), TenantID: found.GetTenant().GetId(), AgentName: name, CreatedBy: "test",
		CreatedAt: time.Now().Add(-time.Hour), Expires: time.Now().Add(-time.Second),
	}), store.Close()))
	return token.Reveal()
}

func TestEnrollRefusals(t *testing.T) {
	b := enrolling(t)
	acme, gone := join(t, b, "acme", time.Hour), join(t, b, "gone", time.Hour)
	used := invite(t, b, "acme", "used")
	_, err := stoker.Enroll(t.Context(), used, enrollment(t, b))
	wantOK(t, err)
	disabled, ofTenant := invite(t, b, "acme", "laptop"), invite(t, b, "gone", "laptop")
	disableAgent(t, b, acme)
	disableTenant(t, b, gone)
	unknown, err := jointoken.New(b.Authority().Pin())
	wantOK(t, err)
	other, err := pki.NewAuthority(brokertest.TrustDomain, nil)
	wantOK(t, err)
	elsewhere, err := jointoken.New(other.Pin())
	wantOK(t, err)
	for name, c := range map[string]struct {
		token string
		want  reason.Reason
		// detail says that the broker has recorded it
		tenant string
	}{
		"used":                {used, reason.JoinTokenUsed, "acme"},
		"expired":             {expired(t, b, "acme", "laptop"), reason.JoinTokenExpired, "acme"},
		"unknown":             {unknown.Reveal(), reason.JoinTokenInvalid, ""},
		"agent disabled":      {disabled, reason.AgentDisabled, "acme"},
		"tenant disabled":     {ofTenant, reason.TenantDisabled, "gone"},
		"another authority's": {elsewhere.Reveal(), "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(records(t, b, "agent.refused", "", ""))
			config := enrollment(t, b)
			_, err := stoker.Enroll(t.Context(), c.token, config)
			if got := stoker.ReasonOf(err); err == nil || got != stoker.Reason(c.want) || (c.want == "") != errors.Is(err, stoker.ErrWrongBroker) {
				t.Fatalf("got %v", err)
			}
			if strings.Contains(err.Error(), strings.Split(c.token, ".")[2]) {
				t.Errorf("%v repeats the token", err)
			}
			if _, err := os.Stat(config.Files.Key); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a key is left: %v", err)
			}
			refused := records(t, b, "agent.refused", "", "")
			if c.want == "" {
				// The token never came to the broker.
				if len(refused) != before {
					t.Errorf("records %v", refused[before:])
				}
				return
			}
			if len(refused) != before+1 {
				t.Fatalf("%d records", len(refused)-before)
			}
			found := false
			for _, r := range refused {
				found = found || r.GetReason() == string(c.want)
			}
			if !found {
				t.Errorf("records %v", refused)
			}
		})
	}
	// By another name than the certificate's nobody enrolls either.
	config := enrollment(t, b)
	config.ServerName = "elsewhere.test"
	if _, err := stoker.Enroll(t.Context(), invite(t, b, "acme", "new"), config); err == nil || !strings.Contains(err.Error(), "elsewhere.test") {
		t.Errorf("by another name: %v", err)
	}
	config.ServerName = "localhost"
	_, err = stoker.Enroll(t.Context(), invite(t, b, "acme", "new"), config)
	wantOK(t, err)
}

// renew asks for the next certificate with the agent's present one.
func renew(t *testing.T, a agent) (*stokerv1.CertificateBundle, error) {
	t.Helper()
	_, request, err := pki.NewRequest()
	wantOK(t, err)
	got, err := stokerv1.NewEnrollmentServiceClient(a.conn).RenewCertificate(t.Context(), &stokerv1.RenewCertificateRequest{CertificateRequest: request})
	return got.GetCertificate(), err
}

// Who may not connect may not renew, and learns the same reason.
func TestRenewalRefusals(t *testing.T) {
	b := enrolling(t)
	for name, c := range map[string]struct {
		do   func(testing.TB, *brokertest.Broker, agent)
		want reason.Reason
	}{
		"agent-disabled":  {disableAgent, reason.AgentDisabled},
		"tenant-disabled": {disableTenant, reason.TenantDisabled},
		"agent-deleted":   {deleteAgent, reason.CertificateRevoked},
		"revoked":         {revokeCertificate, reason.CertificateRevoked},
	} {
		t.Run(name, func(t *testing.T) {
			a := join(t, b, name, time.Hour)
			_, err := renew(t, a)
			wantOK(t, err)
			c.do(t, b, a)
			_, err = renew(t, a)
			wantReason(t, err, c.want)
			// A new connection makes no difference.
			_, err = renew(t, a.with(b, a.cert))
			wantReason(t, err, c.want)
		})
	}
	// A user is not an agent: that one's password is not asked for.
	a := join(t, b, "user-disabled", time.Hour)
	disableUser(t, b, a, true)
	_, err := renew(t, a)
	wantOK(t, err)
}

// An agent that is disabled learns why its certificate is not renewed, keeps the
// old one, and renews once it is enabled again.
func TestRenewalOfADisabledAgent(t *testing.T) {
	b := enrolling(t)
	acme := join(t, b, "acme", time.Hour)
	config := enrollment(t, b)
	_, err := stoker.Enroll(t.Context(), invite(t, b, "acme", "laptop"), config)
	wantOK(t, err)
	disableAgent(t, b, acme)
	install(t, config.Files, b.SignAgent("acme", "laptop", time.Minute))
	e := embed(t, b, acme, config.Files)
	e.until("refusal", func(event stoker.Event) bool {
		return event.Kind == stoker.EventCertificate && stoker.ReasonOf(event.Err) == stoker.ReasonAgentDisabled && !event.RetryTime.IsZero()
	})
	_, err = stokerv1.NewAgentServiceClient(b.Admin).UpdateAgent(t.Context(), &stokerv1.UpdateAgentRequest{
		Agent: &stokerv1.Agent{Tenant: "acme", Name: "laptop"}, UpdateMask: mask("disabled"),
	})
	wantOK(t, err)
	e.CheckCertificate()
	e.until("renewal", func(event stoker.Event) bool {
		return event.Kind == stoker.EventCertificate && event.Err == nil && time.Until(event.Certificate.Expires) > 719*time.Hour
	})
}

// With a PKI of the provider's own there are no invitations and no renewals;
// agents read their files again when those are replaced.
func TestOwnPKI(t *testing.T) {
	ours, err := pki.NewAuthority(brokertest.TrustDomain, nil)
	wantOK(t, err)
	b := site(t, brokertest.Options{PKI: []*pki.Authority{ours}})
	acme := join(t, b, "acme", time.Hour)
	_, err = stokerv1.NewAgentServiceClient(b.Admin).InviteAgent(t.Context(), &stokerv1.InviteAgentRequest{Tenant: "acme", Name: "nas"})
	wantReason(t, err, reason.NoAuthority)

	files := stoker.FilesIn(t.TempDir())
	wantOK(t, os.WriteFile(files.Authority, ours.CertificatePEM(), 0o600))
	install(t, files, b.SignAgent("acme", "laptop", time.Minute))
	e := embed(t, b, acme, files)
	wantOK(t, e.Wait(t.Context(), "nightly"))
	stop := e.supplied(t.Context())
	e.until("refusal", func(event stoker.Event) bool {
		return event.Kind == stoker.EventCertificate && stoker.ReasonOf(event.Err) == stoker.ReasonNoAuthority && event.RetryTime.IsZero()
	})
	next := b.SignAgent("acme", "laptop", time.Hour)
	install(t, files, next)
	e.CheckCertificate()
	e.until("stream with the new certificate", func(event stoker.Event) bool {
		return event.Kind == stoker.EventConnected && event.Identity.CertificateSerial == pki.Serial(brokertest.Leaf(next))
	})
	stop()
	if n := e.count(stoker.EventDisconnected); n != 0 {
		t.Errorf("disconnected %d times", n)
	}
	if list, err := filepath.Glob(filepath.Join(filepath.Dir(files.Key), "*")); err != nil || len(list) != 4 {
		t.Errorf("files %v, %v", list, err)
	}
}

// What an agent loses by a revocation list is recorded as what it loses
// otherwise.
func TestRevocationListIsRecorded(t *testing.T) {
	t.Parallel() // it waits most of the time
	ours, err := pki.NewAuthority(brokertest.TrustDomain, nil)
	wantOK(t, err)
	b := site(t, brokertest.Options{PKI: []*pki.Authority{ours}})
	a, other := join(t, b, "acme", time.Hour), join(t, b, "other", time.Hour)
	b.Revoke(other.cert)
	s := subscribe(t, a)
	lost := s.credential()
	b.Revoke(other.cert, a.cert)
	s.end()
	wantReason(t, s.err, reason.CertificateRevoked)
	var found []*stokerv1.AuditRecord
	for deadline := time.Now().Add(patience); len(found) == 0 && time.Now().Before(deadline); {
		found = records(t, b, "credential.revoked", "acme", "laptop")
	}
	if len(found) != 1 || found[0].GetCredentialId() != lost.GetId() || found[0].GetReason() != string(reason.CertificateRevoked) {
		t.Errorf("records %v", found)
	}
}
