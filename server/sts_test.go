package server_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/brokertest"
	"github.com/stokerd/stoker/server/internal/issuer/devsts"
	"github.com/stokerd/stoker/server/internal/reason"
)

// inject makes the local STS fail from now on.
func inject(t testing.TB, b *brokertest.Broker, f devsts.Fault) {
	t.Helper()
	f.Action = "GetFederationToken"
	wantOK(t, b.STS.Inject(f))
}

// discreet checks that an answer tells a tenant nothing of the provider's
// account at AWS.
func discreet(t *testing.T, st *status.Status) {
	t.Helper()
	for _, word := range []string{"AKIA", "arn:", "127.0.0.1", "http", "000000000000", "GetFederationToken", "stoker/"} {
		if strings.Contains(st.String(), word) {
			t.Errorf("the answer has %q: %s", word, st)
		}
	}
}

// credentialRecords counts what the trail says was issued for an agent.
func credentialRecords(t *testing.T, b *brokertest.Broker, a agent) map[string]bool {
	t.Helper()
	ids := map[string]bool{}
	for _, event := range []string{"credential.issued", "credential.renewed"} {
		for _, r := range records(t, b, event, a.tenant, a.name) {
			ids[r.GetCredentialId()] = true
		}
	}
	return ids
}

// Whatever STS answers, a caller learns the reason, the stream stays, and the
// first good answer is pushed.
func TestTroubleWithSTS(t *testing.T) {
	for _, c := range []struct {
		kind devsts.FaultKind
		want reason.Reason
	}{
		{devsts.Deny, reason.STSRefused},
		{devsts.Throttle, reason.STSThrottled},
		{devsts.ServerError, reason.STSUnavailable},
		{devsts.Unavailable, reason.STSUnavailable},
		{devsts.Garble, reason.STSUnavailable},
		{devsts.Drop, reason.STSUnavailable},
	} {
		t.Run(string(c.kind), func(t *testing.T) {
			b := site(t, brokertest.Options{})
			acme := join(t, b, "acme", time.Hour)
			inject(t, b, devsts.Fault{Kind: c.kind})
			_, err := acme.fetch(t, "nightly")
			st := wantReason(t, err, c.want)
			discreet(t, st)
			s := subscribe(t, acme)
			p := s.problem(c.want)
			discreet(t, status.FromProto(p.GetStatus()))
			row, _ := reason.Lookup(c.want)
			if p.GetGrant() != "nightly" || (p.GetRetryTime() != nil) != row.Transient || p.GetGoodUntil() != nil {
				t.Errorf("problem %v", p)
			}
			if ids := credentialRecords(t, b, acme); len(ids) != 0 {
				t.Errorf("the trail has %d credentials that nobody got", len(ids))
			}
			b.STS.ClearFaults()
			if !row.Transient {
				// Not before something changes, which an operator does.
				setLifetime(t, b, acme, 2*time.Hour)
			}
			got := s.credential()
			if ids := credentialRecords(t, b, acme); !ids[got.GetId()] || len(ids) != 1 {
				t.Errorf("got %s, the trail has %v", got.GetId(), ids)
			}
			acme.works(t)
		})
	}
}

// An STS that does not answer holds up who waits for it, up to the account's
// time limit, and nobody else: not the callers that give up, and not other
// calls.
func TestHangingSTS(t *testing.T) {
	t.Parallel() // it waits most of the time
	b := site(t, brokertest.Options{})
	acme := join(t, b, "acme", time.Hour).session(t)
	inject(t, b, devsts.Fault{Kind: devsts.Hang})
	s := subscribe(t, acme)
	impatient, cancel := context.WithTimeout(acme.ctx(t), 300*time.Millisecond)
	defer cancel()
	_, err := stokerv1.NewCredentialServiceClient(acme.conn).GetCredentials(impatient, &stokerv1.GetCredentialsRequest{})
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
	wantOK(t, acme.whoami(acme.ctx(t)))
	_, err = acme.fetch(t, "nightly")
	discreet(t, wantReason(t, err, reason.STSUnavailable))
	p := s.problem(reason.STSUnavailable)
	if p.GetRetryTime() == nil {
		t.Errorf("problem %v", p)
	}
	b.STS.ClearFaults()
	got := s.credential()
	if ids := credentialRecords(t, b, acme); len(ids) != 1 || !ids[got.GetId()] {
		t.Errorf("got %s, the trail has %v", got.GetId(), ids)
	}
}

// While STS is away the last good credential is kept, and its end is told.
func TestLastGoodIsKeptWhileSTSIsAway(t *testing.T) {
	t.Parallel() // it waits most of the time
	b := site(t, brokertest.Options{})
	acme := join(t, b, "acme", 12*time.Second)
	s := subscribe(t, acme)
	first := s.credential()
	inject(t, b, devsts.Fault{Kind: devsts.Unavailable})
	p := s.problem(reason.STSUnavailable)
	if !p.GetGoodUntil().AsTime().Equal(first.GetExpireTime().AsTime()) || p.GetRetryTime() == nil {
		t.Errorf("problem %v, the credential ends %v", p, first.GetExpireTime().AsTime())
	}
	// A call gets the same one, as long as it lasts.
	if got, err := acme.fetch(t, "nightly"); err != nil || got[0].GetId() != first.GetId() {
		t.Errorf("got %v, %v", got, err)
	}
	b.STS.ClearFaults()
	if next := s.credential(); !next.GetIssueTime().AsTime().After(first.GetIssueTime().AsTime()) {
		t.Errorf("the next one is of %v", next.GetIssueTime().AsTime())
	}
}
