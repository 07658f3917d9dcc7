package server_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/brokertest"
	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/reason"
)

// prompt is how long after the acknowledgement a stream may still be open here.
// The promise is a second, which stoker-bench measures; a machine that runs
// tests may be busy with others.
const prompt = 10 * time.Second

// cutOff does something to the agent of an open stream, and checks that the
// stream ends in time with the reason, that nothing was sent on it after the
// acknowledgement, and that a new one is refused for the same reason.
func cutOff(t *testing.T, a agent, do func(), want reason.Reason) {
	t.Helper()
	s := subscribe(t, a)
	s.credential()
	do()
	acknowledged := time.Now()
	for _, m := range s.end() {
		if c := m.GetCredential(); c != nil && c.GetIssueTime().AsTime().After(acknowledged) {
			t.Errorf("a credential issued %s after the acknowledgement arrived", c.GetIssueTime().AsTime().Sub(acknowledged))
		}
	}
	wantReason(t, s.err, want)
	if late := s.at.Sub(acknowledged); late > prompt {
		t.Errorf("the stream ended %s after the acknowledgement", late)
	}
	_, err := a.fetch(t, "nightly")
	wantReason(t, err, want)
	wantReason(t, opened(t, a), want)
}

func TestCutOffsDuringTheStream(t *testing.T) {
	b := site(t, brokertest.Options{})
	for i, c := range cutoffs {
		t.Run(c.name, func(t *testing.T) {
			a := join(t, b, fmt.Sprintf("tenant-%d", i), time.Hour).session(t)
			cutOff(t, a, func() { c.do(t, b, a) }, c.want)
		})
	}
	// A stream that was opened with a password ends in the same ways.
	t.Run("password changed, without a session", func(t *testing.T) {
		a := join(t, b, "basic", time.Hour)
		s := subscribe(t, a)
		s.credential()
		changePassword(t, b, a)
		s.end()
		wantReason(t, s.err, reason.PasswordChanged)
		a.password = "another good password"
		a.works(t)
	})
	t.Run("another tenant is not touched", func(t *testing.T) {
		a, other := join(t, b, "one", time.Hour), join(t, b, "two", time.Hour)
		s, kept := subscribe(t, a), subscribe(t, other)
		s.credential()
		kept.credential()
		disableTenant(t, b, a)
		s.end()
		wantReason(t, s.err, reason.TenantDisabled)
		setAccess(t, b, other, stokerv1.Access_ACCESS_RESTORE)
		kept.credential()
	})
}

// A revocation list of the provider's own PKI ends open streams too, as soon
// as the broker has read it.
func TestRevocationListDuringTheStream(t *testing.T) {
	ours, err := pki.NewAuthority(brokertest.TrustDomain, nil)
	wantOK(t, err)
	b := site(t, brokertest.Options{PKI: []*pki.Authority{ours}})
	a, other := join(t, b, "acme", time.Hour), join(t, b, "other", time.Hour)
	s, kept := subscribe(t, a), subscribe(t, other)
	s.credential()
	kept.credential()
	b.Revoke(a.cert)
	published := time.Now()
	s.end()
	wantReason(t, s.err, reason.CertificateRevoked)
	if late := s.at.Sub(published); late > pki.DefaultInterval+prompt {
		t.Errorf("the stream ended %s after the list was there", late)
	}
	if err := alert(t, b, b.TLS(a.cert)); err == nil {
		t.Error("the revoked certificate opens connections")
	}
	setAccess(t, b, other, stokerv1.Access_ACCESS_RESTORE)
	kept.credential()
}

// The certificate's end ends the stream, and no credential lives longer.
func TestCertificateEndsDuringTheStream(t *testing.T) {
	t.Parallel() // it waits most of the time
	b := site(t, brokertest.Options{})
	acme := join(t, b, "acme", 3*time.Second)
	cert := b.SignAgent("acme", "laptop", 15*time.Second)
	end := brokertest.Leaf(cert).NotAfter
	short := acme.with(b, cert)
	s := subscribe(t, short)
	got := 0
	for _, m := range s.end() {
		if c := m.GetCredential(); c != nil {
			got++
			if c.GetExpireTime().AsTime().After(end) {
				t.Errorf("a credential ends at %s, the certificate at %s", c.GetExpireTime().AsTime(), end)
			}
		}
	}
	if got < 2 {
		t.Errorf("%d credentials in the certificate's life", got)
	}
	wantReason(t, s.err, reason.CertificateExpired)
	if late := s.at.Sub(end); late < -time.Second || late > prompt {
		t.Errorf("the stream ended %s after the certificate", late)
	}
	// The connection is still open, and of no use.
	_, err := short.fetch(t, "nightly")
	wantReason(t, err, reason.CertificateExpired)
	acme.works(t)
	for _, issued := range b.STS.Issued() {
		if d := issued.Expires.Sub(end); issued.IssuedAt.Before(end) && d > 3*time.Second {
			t.Errorf("STS issued until %s", issued.Expires)
		}
	}
}

// A session's end ends the stream, as the certificate's does.
func TestSessionEndsDuringTheStream(t *testing.T) {
	t.Parallel() // it waits most of the time
	b := site(t, brokertest.Options{})
	acme := join(t, b, "acme", time.Hour).session(t)
	end := time.Now().Add(10 * time.Second).Truncate(time.Second)
	acme.token = edited(t, b, acme.token, func(c jwt.MapClaims) { c["exp"] = end.Unix() })
	s := subscribe(t, acme)
	s.credential()
	s.end()
	wantReason(t, s.err, reason.TokenExpired)
	if late := s.at.Sub(end); late < -time.Second || late > prompt {
		t.Errorf("the stream ended %s after the session", late)
	}
}

// policyOf is the session policy that STS was given for a credential.
func policyOf(t *testing.T, b *brokertest.Broker, c *stokerv1.Credential) string {
	t.Helper()
	for _, issued := range b.STS.Issued() {
		if issued.AccessKeyID == c.GetAccessKeyId() {
			return issued.Policy
		}
	}
	t.Fatalf("STS knows nothing of %s", c.GetAccessKeyId())
	return ""
}

// A grant that changes is supplied under its new terms at once; one that is
// taken away is revoked, and the stream goes on.
func TestGrantsThatChangeDuringTheStream(t *testing.T) {
	b := site(t, brokertest.Options{})
	grants := stokerv1.NewGrantServiceClient(b.Admin)
	change := func(t *testing.T, g *stokerv1.Grant, paths ...string) time.Time {
		t.Helper()
		_, err := grants.UpdateGrant(t.Context(), &stokerv1.UpdateGrantRequest{Grant: g, UpdateMask: mask(paths...)})
		wantOK(t, err)
		return time.Now()
	}
	inTime := func(t *testing.T, since time.Time) {
		t.Helper()
		if late := time.Since(since); late > prompt {
			t.Errorf("told %s after the acknowledgement", late)
		}
	}
	t.Run("access", func(t *testing.T) {
		a := join(t, b, "access", time.Hour)
		s := subscribe(t, a)
		first := s.credential()
		setAccess(t, b, a, stokerv1.Access_ACCESS_RESTORE)
		at := time.Now()
		next := s.credential()
		inTime(t, at)
		if next.GetAccess() != stokerv1.Access_ACCESS_RESTORE || policyOf(t, b, next) == policyOf(t, b, first) {
			t.Errorf("the next one is %v under %s", next.GetAccess(), policyOf(t, b, next))
		}
		if !next.GetIssueTime().AsTime().After(first.GetIssueTime().AsTime()) {
			t.Errorf("issued %v after %v", next.GetIssueTime().AsTime(), first.GetIssueTime().AsTime())
		}
	})
	t.Run("prefix", func(t *testing.T) {
		a := join(t, b, "prefix", time.Hour)
		s := subscribe(t, a)
		s.credential()
		at := change(t, &stokerv1.Grant{Tenant: a.tenant, Name: "nightly", Prefix: "prefix-new/"}, "prefix")
		next := s.credential()
		inTime(t, at)
		if next.GetTarget().GetPrefix() != "prefix-new/" {
			t.Errorf("the next one is for %q", next.GetTarget().GetPrefix())
		}
	})
	t.Run("disabled and enabled", func(t *testing.T) {
		a := join(t, b, "disabled", time.Hour)
		s := subscribe(t, a)
		s.credential()
		at := change(t, &stokerv1.Grant{Tenant: a.tenant, Name: "nightly", Disabled: true}, "disabled")
		if r := s.revocation(reason.GrantDisabled); r.GetGrant() != "nightly" || r.GetCredentialId() != "" {
			t.Errorf("revocation %v", r)
		}
		inTime(t, at)
		_, err := a.fetch(t, "nightly")
		wantReason(t, err, reason.GrantDisabled)
		at = change(t, &stokerv1.Grant{Tenant: a.tenant, Name: "nightly"}, "disabled")
		s.credential()
		inTime(t, at)
	})
	t.Run("deleted and made anew", func(t *testing.T) {
		a := join(t, b, "deleted", time.Hour)
		s := subscribe(t, a)
		s.credential()
		_, err := grants.DeleteGrant(t.Context(), &stokerv1.DeleteGrantRequest{Tenant: a.tenant, Name: "nightly"})
		wantOK(t, err)
		at := time.Now()
		if r := s.revocation(reason.GrantDeleted); r.GetGrant() != "nightly" {
			t.Errorf("revocation %v", r)
		}
		inTime(t, at)
		_, err = a.fetch(t, "nightly")
		wantReason(t, err, reason.GrantUnknown)
		b.Grant(&stokerv1.Grant{Tenant: a.tenant, Name: "nightly", Location: "main", Prefix: "deleted/", Access: stokerv1.Access_ACCESS_BACKUP}, time.Hour)
		s.credential() // the stream asked for all grants
	})
	t.Run("a new one", func(t *testing.T) {
		a := join(t, b, "new", time.Hour)
		s := subscribe(t, a)
		s.credential()
		b.Grant(&stokerv1.Grant{Tenant: a.tenant, Name: "weekly", Location: "main", Prefix: "new-weekly/", Access: stokerv1.Access_ACCESS_BACKUP}, time.Hour)
		at := time.Now()
		if got := s.credential(); got.GetGrant() != "weekly" {
			t.Errorf("got %v", got)
		}
		inTime(t, at)
	})
	t.Run("given to one user", func(t *testing.T) {
		a := join(t, b, "moved", time.Hour)
		b.User(a.tenant, "second")
		s := subscribe(t, a)
		s.credential()
		at := change(t, &stokerv1.Grant{Tenant: a.tenant, Name: "nightly", Login: "second"}, "login")
		s.revocation(reason.GrantUnknown)
		inTime(t, at)
	})
}
