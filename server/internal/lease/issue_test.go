package lease

import (
	"context"
	"errors"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/issuer"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// What is asked of STS, what is recorded, and what the subscriber gets.
func TestIssue(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a := w.subscribe(1)
		after(time.Second)
		a.want(1, 0, 0)
		c, request := a.credential(), w.sts.made()[0].request
		if !regexp.MustCompile(`^stoker-[0-9a-z]{25}$`).MatchString(request.SessionName) {
			t.Errorf("the session name is %q", request.SessionName)
		}
		want := issuer.Request{
			SessionName: request.SessionName, Policy: `{"Statement":[{"g1":1}]}`, Duration: hour,
			Tags: []issuer.Tag{{Key: "tenant", Value: "t1"}, {Key: "user", Value: "u1"}, {Key: "agent", Value: "a1"}, {Key: "grant", Value: "g1"}},
		}
		if d := cmp.Diff(want, request); d != "" {
			t.Errorf("the request differs (-want +got):\n%s", d)
		}
		h := holder(1)
		rec := w.trail.of(audit.CredentialIssued)[0]
		wantRec := storage.AuditRecord{
			Time: rec.Time, Event: "credential.issued", Actor: h.Actor,
			CertificateSerial: h.Certificate.Serial, CertificateThumbprint: h.Certificate.Thumbprint, Peer: h.Peer,
			TenantID: "t1", Tenant: "acme", UserID: "u1", Login: "backup", AgentID: "a1", Agent: "agent-1",
			GrantID: "g1", Grant: "grant-g1", SessionID: "s1", Account: "main",
			CredentialID: c.ID, AccessKeyID: c.AccessKeyID, SessionName: request.SessionName, PolicyHash: "hash-g1", Expires: c.Expires,
			Detail: map[string]string{
				"issued_at": c.IssuedAt.Format(time.RFC3339Nano), "lifetime": "1h0m0s", "location": "bucket|eu-central-1||", "packed_policy_percent": "12",
			},
		}
		if d := cmp.Diff(wantRec, rec); d != "" {
			t.Errorf("the record differs (-want +got):\n%s", d)
		}
		switch {
		case c.SecretAccessKey.Reveal() != "hush" || c.SessionToken.Reveal() != "hush hush":
			t.Error("the secrets did not arrive")
		case c.GrantID != "g1" || c.Grant != "grant-g1" || c.Prefix != "acme/g1/" || c.Access != "backup" || c.Location.Bucket != "bucket":
			t.Errorf("the credential is %+v", c)
		}
	})
}

// The audit record is durable before anybody gets the credential.
func TestRecordedBeforeDelivered(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a := &agent{t: t, w: w, n: 1}
		a.check = func(e Event) {
			if e.Credential != nil && !w.trail.has(e.Credential.ID) {
				t.Errorf("credential %s left without a record", e.Credential.ID)
			}
		}
		w.trail.set(func(f *fakeTrail) { f.onAppend = func(storage.AuditRecord) { pass(50 * time.Millisecond) } })
		w.m.Subscribe(holder(1), "g1", nil, a)
		after(10 * hour)
		if n := len(a.credentials()); n < 10 {
			t.Errorf("only %d credentials", n)
		}
	})
}

// The feed moves while STS answers: the entitlement is looked up again, and the
// same credential is recorded under the new fence.
func TestStaleFenceSameTerms(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		stale := 0
		w.trail.set(func(f *fakeTrail) {
			f.onAppend = func(storage.AuditRecord) {
				if stale < 3 {
					stale++
					w.authority.mu.Lock()
					w.authority.committed++ // not applied: Sync is needed
					w.authority.mu.Unlock()
				}
			}
		})
		a := w.subscribe(1)
		after(time.Second)
		a.want(1, 0, 0)
		if n := w.sts.count(); n != 1 {
			t.Errorf("%d calls to STS for one credential", n)
		}
	})
}

// The grant changes between the entitlement and the commit: the credential
// issued under the old terms is discarded and one under the new is issued.
func TestStaleFenceOtherTerms(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		var once sync.Once
		w.trail.set(func(f *fakeTrail) {
			f.onAppend = func(storage.AuditRecord) {
				once.Do(func() { w.authority.alter("g1", func(e *Entitlement) { e.PolicyHash = "hash-2" }) })
			}
		})
		a := w.subscribe(1)
		after(time.Second)
		a.want(1, 0, 0)
		if got := a.credential().PolicyHash; got != "hash-2" {
			t.Errorf("the credential is under %s", got)
		}
		if s := w.m.Stats(); s.Discarded != 1 || s.Calls != 2 {
			t.Errorf("%d discarded of %d calls", s.Discarded, s.Calls)
		}
		if n := len(w.trail.of(audit.CredentialIssued)); n != 1 {
			t.Errorf("%d issues are recorded", n)
		}
	})
}

// A feed that never holds still ends in a transient problem, not in a loop.
func TestFeedNeverHoldsStill(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.trail.set(func(f *fakeTrail) {
			f.onAppend = func(storage.AuditRecord) {
				w.authority.mu.Lock()
				w.authority.committed++
				w.authority.mu.Unlock()
			}
		})
		a := w.subscribe(1)
		after(10 * time.Second)
		a.want(0, 1, 0)
		wantReason(t, a.problems()[0].Problem.Err, reason.StorageUnavailable)
		if n := w.sts.count(); n > 20 {
			t.Errorf("%d calls in ten seconds", n)
		}
		w.trail.set(func(f *fakeTrail) { f.onAppend = nil })
		after(time.Minute)
		a.want(1, 1, 0)
	})
}

func TestSyncFails(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.authority.mu.Lock()
		w.authority.committed, w.authority.syncErr = 5, errors.New("database away")
		w.authority.mu.Unlock()
		a := w.subscribe(1)
		after(time.Second)
		a.want(0, 1, 0)
		wantReason(t, a.problems()[0].Problem.Err, reason.StorageUnavailable)
	})
}

// A revocation that is acknowledged while STS is being asked wins: the
// credential is discarded, and nobody gets it.
func TestRevocationDuringCall(t *testing.T) {
	for _, when := range []string{"call", "append"} {
		t.Run(when, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				revoke := func() {
					w.authority.deny("user:u1", reason.New(reason.UserDisabled, "disabled"))
					w.change(storage.KindUser, "u1")
				}
				var once sync.Once
				if when == "call" {
					w.sts.set(func(s *fakeSTS) {
						s.fail = func(context.Context, issuer.Request) error { once.Do(revoke); return nil }
					})
				} else {
					w.trail.set(func(f *fakeTrail) {
						f.onAppend = func(rec storage.AuditRecord) {
							if rec.Event == string(audit.CredentialIssued) {
								once.Do(revoke)
							}
						}
					})
				}
				a := w.subscribe(1)
				after(hour)
				a.want(0, 0, 1)
				wantReason(t, a.revocations()[0].Revoked.Err, reason.UserDisabled)
				if s := w.m.Stats(); s.Calls != 1 || s.Discarded != 1 {
					t.Errorf("%d calls, %d discarded", s.Calls, s.Discarded)
				}
			})
		})
	}
}

// The change is seen between the commit of the record and the delivery.
func TestRevocationAfterCommit(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		var done atomic.Bool
		w.authority.onEntitle = func(Holder) {
			if len(w.trail.of(audit.CredentialIssued)) == 1 && !done.Swap(true) {
				w.authority.deny("grant:g1", reason.New(reason.GrantDisabled, "disabled"))
				w.change(storage.KindGrant, "g1")
			}
		}
		a := w.subscribe(1)
		after(hour)
		a.want(0, 0, 1)
		if w.m.Stats().Discarded != 1 {
			t.Error("the credential was not discarded")
		}
	})
}

// The change comes when the last check has been answered and the credential
// has not been delivered: to a new stream, and when it comes from STS.
func TestRevocationBetweenCheckAndDelivery(t *testing.T) {
	for name, first := range map[string]int{"new credential": 1, "new stream": 2} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				n := 0
				w.authority.onRevoked = func(string) {
					if n++; n == first {
						w.authority.deny("grant:g1", reason.New(reason.GrantDisabled, "disabled"))
						w.change(storage.KindGrant, "g1")
					}
				}
				a := w.subscribe(1)
				after(time.Second)
				b := w.subscribe(1)
				after(time.Second)
				a.want(first-1, 0, 1)
				if len(b.credentials()) != 0 {
					t.Errorf("the second stream:%s", b.story())
				}
			})
		})
	}
}

// An authority whose revocations reach into the future makes no storm of calls.
func TestEveryNewCredentialIsRevoked(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.trail.set(func(f *fakeTrail) {
			f.onAppend = w.authority.revokeSilently
		})
		a := w.subscribe(1)
		after(10 * time.Minute)
		a.want(0, 0, 0)
		if n := w.sts.count(); n < 3 || n > 200 {
			t.Errorf("%d calls in ten minutes", n)
		}
		w.trail.set(func(f *fakeTrail) { f.onAppend = nil })
		after(time.Minute)
		a.want(1, 0, 0)
	})
}

// A later subscriber whose certificate ends before the credential in force is
// not given that one: all get a fresh one that fits.
func TestSubscriberWithShorterCertificate(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		long := w.subscribe(1)
		after(time.Second)
		h := holder(1)
		h.Certificate = Certificate{Serial: "77", Thumbprint: "88", NotAfter: time.Now().Add(30 * time.Minute)}
		short := w.subscribeAs(2, h, "g1", nil)
		after(time.Second)
		long.want(2, 0, 0)
		short.want(1, 0, 0)
		if c := short.credential(); c != long.credential() || c.Expires.After(h.Certificate.NotAfter) {
			t.Errorf("the credential until %s is for a certificate until %s", c.Expires, h.Certificate.NotAfter)
		}
		if rec := w.trail.of(audit.CredentialRenewed); len(rec) != 1 || rec[0].CertificateSerial != "77" {
			t.Errorf("the record does not name the certificate that bounds the credential: %+v", rec)
		}
		// Once the short certificate cannot be issued to any more, the other
		// is supplied as before.
		after(29 * time.Minute)
		if len(short.problems()) != 1 || !short.problems()[0].Problem.RetryAt.IsZero() {
			t.Fatalf("the short one was not told:%s", short.story())
		}
		wantReason(t, short.problems()[0].Problem.Err, reason.CertificateEndsTooSoon)
		after(hour)
		c := long.credential()
		if c.Expires.Sub(c.IssuedAt) != hour {
			t.Errorf("the long one's credential lives %s", c.Expires.Sub(c.IssuedAt))
		}
		if got := short.credential(); got.Expires.After(h.Certificate.NotAfter) {
			t.Error("the short one was given a credential that outlives its certificate")
		}
	})
}

// STS's clock is ahead of the broker's by more than the margin.
func TestCredentialWouldOutliveCertificate(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.sts.set(func(s *fakeSTS) { s.ahead = time.Minute })
		h := holder(1)
		h.Certificate.NotAfter = time.Now().Add(30 * time.Minute)
		a := w.subscribeAs(1, h, "g1", nil)
		after(10 * time.Second)
		a.want(1, 0, 0)
		if c := a.credential(); c.Expires.After(h.Certificate.NotAfter) {
			t.Errorf("the credential ends %s after the certificate", c.Expires.Sub(h.Certificate.NotAfter))
		}
		if n := w.sts.count(); n != 2 {
			t.Errorf("%d calls, want 2: the second knows how far STS is ahead", n)
		}
		if n := len(w.trail.of(audit.CredentialIssued)) + len(w.trail.of(audit.CredentialRenewed)); n != 1 {
			t.Errorf("%d issues are recorded", n)
		}
	})
}

// A holder whose certificate's end is unknown is given nothing.
func TestCertificateWithoutEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		h := holder(1)
		h.Certificate.NotAfter = time.Time{}
		a := w.subscribeAs(1, h, "g1", nil)
		after(time.Minute)
		if len(a.credentials()) != 0 || w.sts.count() != 0 {
			t.Errorf("a credential without a bound was issued")
		}
	})
}

// STS grants less than was asked for: the renewal follows what was granted.
func TestShorterThanAskedFor(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.sts.set(func(s *fakeSTS) { s.shorten = 30 * time.Minute })
		a := w.subscribe(1)
		after(20 * time.Minute)
		a.want(2, 0, 0)
	})
}

// Leases of services are kept apart by the service.
func TestServicesDoNotShare(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		h := holder(1)
		h.AgentID, h.Agent, h.UserID, h.Login, h.Actor = "", "", "", "", "spiffe://example.com/service/restore"
		other := h
		other.Actor = "spiffe://example.com/service/report"
		a, b, c := w.subscribeAs(1, h, "g1", nil), w.subscribeAs(2, other, "g1", nil), w.subscribeAs(3, h, "g1", nil)
		after(time.Second)
		if a.credential() == b.credential() || a.credential() != c.credential() {
			t.Error("two services share a lease, or one does not with itself")
		}
		if got := w.sts.made()[0].request.Tags; len(got) != 2 || got[0].Key != "tenant" || got[1].Key != "grant" {
			t.Errorf("the tags are %v", got)
		}
	})
}

// An account that the configuration does not have, and a lifetime that the
// account does not issue, are the provider's faults and permanent.
func TestGrantThatCannotBeIssued(t *testing.T) {
	for name, e := range map[string]func(*Entitlement){
		"account":  func(e *Entitlement) { e.Account = "gone" },
		"lifetime": func(e *Entitlement) { e.Grant.Lifetime = 5 * time.Minute },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.authority.alter("g1", e)
				a := w.subscribe(1)
				after(hour)
				a.want(0, 1, 0)
				wantReason(t, a.problems()[0].Problem.Err, reason.GrantInvalid)
				if w.sts.count() != 0 || !a.problems()[0].Problem.RetryAt.IsZero() {
					t.Error("STS was asked, or is to be asked again")
				}
				w.authority.alter("g1", func(e *Entitlement) { e.Account, e.Grant.Lifetime = "main", hour })
				w.change(storage.KindGrant, "g1")
				after(time.Second)
				a.want(1, 1, 0)
			})
		})
	}
}
