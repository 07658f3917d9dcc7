package adminapi_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/adminapi"
	"github.com/stokerd/stoker/server/internal/lease"
	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
	"github.com/stokerd/stoker/server/internal/watch"
)

func TestGetStatus(t *testing.T) {
	now := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	c := start(t, func(c *adminapi.Config) {
		c.Now = func() time.Time { return now }
		c.Streams = fewStreams
		c.Status = func(context.Context) (adminapi.Status, error) {
			return adminapi.Status{
				Version: "1.2.3", Started: now.Add(-time.Hour), Problem: "storage: away", Writer: "one",
				Brokers: []watch.Broker{{Writer: "two", Started: now, Last: now}, {Writer: "one", Started: now, Last: now}},
				Issued:  3, Renewed: 4,
				Leases: lease.Stats{Leases: 9, Dry: 2, HasCredential: true, Emptiest: -time.Second, Accounts: []lease.AccountStats{
					{Name: "main", Due: 1, Waiting: 2, InFlight: 3, Lag: time.Minute, Rate: 10, Limit: 100, Down: true},
				}},
				Accounts:     map[string]adminapi.Account{"main": {Method: "assume_role", Region: "eu-central-1"}},
				Certificates: []pki.Status{{Name: "server certificate", Expires: now}, {Name: "client authorities", Err: errors.New("no PEM")}},
				Revocations:  []storage.Revocation{{State: storage.RevocationFailed}, {State: storage.RevocationPending}, {State: storage.RevocationPending}, {State: storage.RevocationApplied}},
			}, nil
		}
	})
	s := must(c.fleet.GetStatus(t.Context(), &stokerv1.GetStatusRequest{}))(t)
	if s.GetVersion() != "1.2.3" || s.GetReady() || s.GetProblem() != "storage: away" || !s.GetTime().AsTime().Equal(now) || !s.GetStartTime().AsTime().Equal(now.Add(-time.Hour)) {
		t.Errorf("status %v", s)
	}
	if len(s.GetReplicas()) != 2 || s.GetReplicas()[0].GetAnswering() || !s.GetReplicas()[1].GetAnswering() {
		t.Errorf("replicas %v", s.GetReplicas())
	}
	if s.GetStreams() != 6 || s.GetLeases() != 9 || s.GetLeasesDry() != 2 || s.GetEmptiest().AsDuration() != -time.Second || s.GetIssuedLastMinute() != 3 || s.GetRenewedLastMinute() != 4 {
		t.Errorf("supply %v", s)
	}
	a := s.GetAccounts()[0]
	if a.GetName() != "main" || a.GetMethod() != "assume_role" || a.GetRegion() != "eu-central-1" || !a.GetDown() || a.GetBudget() != 10 || a.GetLimit() != 100 ||
		a.GetDue() != 1 || a.GetWaiting() != 2 || a.GetInFlight() != 3 || a.GetLag().AsDuration() != time.Minute {
		t.Errorf("account %v", a)
	}
	if len(s.GetCertificates()) != 2 || s.GetCertificates()[1].GetProblem() != "no PEM" || s.GetRevocationsPending() != 2 || s.GetRevocationsFailed() != 1 {
		t.Errorf("certificates %v, revocations %d and %d", s.GetCertificates(), s.GetRevocationsPending(), s.GetRevocationsFailed())
	}
}

func TestStatusListsWhoRunsDry(t *testing.T) {
	now := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	supply := func(name string, left, renewal time.Duration, problem reason.Reason) lease.Status {
		return lease.Status{
			Holder: lease.Holder{Tenant: "acme", Agent: name, Login: "nightly"}, Grant: "photos", Subscriptions: 1, Entitled: true,
			CredentialID: "c", Expires: now.Add(left), RenewAt: now.Add(renewal), Problem: problem,
		}
	}
	never := lease.Status{Holder: lease.Holder{Tenant: "acme", Agent: "never had one"}, Subscriptions: 1, Entitled: true, Problem: reason.STSUnavailable, RetryAt: now.Add(time.Second)}
	left := supply("without a stream", time.Minute, -time.Hour, reason.STSRefused)
	left.Subscriptions = 0
	barred := supply("not entitled", -time.Minute, -time.Hour, "")
	barred.Entitled = false
	supplies := []lease.Status{
		supply("well supplied", 40*time.Minute, 10*time.Minute, ""),
		supply("short-lived and well", 10*time.Minute, 5*time.Minute, ""),
		supply("just due", 10*time.Minute, -10*time.Second, ""),
		supply("failing with time left", 20*time.Minute, -10*time.Minute, reason.STSThrottled),
		supply("failing", 14*time.Minute, -10*time.Minute, reason.STSThrottled),
		supply("overdue", 5*time.Minute, -time.Minute, ""),
		supply("dry", -time.Minute, -time.Hour, reason.STSThrottled),
		never, left, barred,
	}
	c := start(t, func(c *adminapi.Config) {
		c.Now = func() time.Time { return now }
		c.Status = func(context.Context) (adminapi.Status, error) { return adminapi.Status{Supplies: supplies}, nil }
	})
	read := func() (agents []string, s *stokerv1.GetStatusResponse) {
		s = must(c.fleet.GetStatus(t.Context(), &stokerv1.GetStatusRequest{}))(t)
		for _, d := range s.GetDrySoon() {
			agents = append(agents, d.GetAgent())
		}
		return agents, s
	}
	agents, s := read()
	if got, want := fmt.Sprint(agents), "[never had one dry overdue failing]"; got != want || s.GetDrySoonTotal() != 4 {
		t.Errorf("%s of %d, want %s", got, s.GetDrySoonTotal(), want)
	}
	first, last := s.GetDrySoon()[0], s.GetDrySoon()[3]
	if first.GetExpireTime() != nil || first.GetProblem() != "STS_UNAVAILABLE" || first.GetRetryTime() == nil || last.GetProblem() != "STS_THROTTLED" || last.GetGrant() != "photos" {
		t.Errorf("first %v, last %v", first, last)
	}
	for i := range 100 {
		supplies = append(supplies, supply(fmt.Sprint(i), time.Duration(i)*time.Second, -time.Hour, reason.STSThrottled))
	}
	if agents, s := read(); len(agents) != 50 || s.GetDrySoonTotal() != 104 {
		t.Errorf("%d of %d are shown", len(agents), s.GetDrySoonTotal())
	}
}

func TestStatusListsCertificatesThatAreNotRenewed(t *testing.T) {
	now := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	stream := func(agent string, life, left time.Duration) adminapi.Stream {
		return adminapi.Stream{
			ID: agent, Tenant: "acme", Agent: agent, CertificateSerial: agent,
			CertificateFrom: now.Add(left - life), CertificateTo: now.Add(left),
		}
	}
	const day = 24 * time.Hour
	c := start(t, func(c *adminapi.Config) {
		c.Now = func() time.Time { return now }
		c.Streams = func() []adminapi.Stream {
			return []adminapi.Stream{
				stream("young", 30*day, 20*day), stream("about to renew", 30*day, 10*day), stream("late", 30*day, 7*day),
				stream("short and young", time.Hour, 30*time.Minute), stream("short and late", time.Hour, 10*time.Minute), stream("late", 30*day, 7*day),
			}
		}
	})
	s := must(c.fleet.GetStatus(t.Context(), &stokerv1.GetStatusRequest{}))(t)
	var agents []string
	for _, e := range s.GetExpiring() {
		agents = append(agents, e.GetAgent())
	}
	if got := fmt.Sprint(agents); got != "[short and late late]" || s.GetExpiringTotal() != 2 {
		t.Errorf("expiring %s of %d", got, s.GetExpiringTotal())
	}
}
