package adminapi

import (
	"cmp"
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/lease"
	"github.com/stokerd/stoker/server/internal/message"
	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/storage"
	"github.com/stokerd/stoker/server/internal/watch"
)

// Status is the state of this replica.
type Status struct {
	Version string
	Started time.Time
	// Problem is why the replica is not ready, or "".
	Problem string
	// Writer is this replica's chain; Brokers are all that run, with this one.
	Writer  string
	Brokers []watch.Broker
	// Issued and Renewed count the last minute.
	Issued, Renewed uint64
	Leases          lease.Stats
	// Supplies is every lease.
	Supplies []lease.Status
	Accounts map[string]Account
	// Certificates are the broker's own.
	Certificates []pki.Status
	Revocations  []storage.Revocation
}

// Account is what a status tells of an account beside its work.
type Account struct{ Method, Region string }

const (
	// dryWithin is how far ahead a status looks for leases that run dry, and
	// overdue how late a renewal may be before it counts as failing.
	dryWithin = 15 * time.Minute
	overdue   = 30 * time.Second
	// maxShown bounds the lists of a status.
	maxShown = 50
)

// GetStatus implements stokerv1.FleetServiceServer.
func (s fleet) GetStatus(ctx context.Context, _ *stokerv1.GetStatusRequest) (*stokerv1.GetStatusResponse, error) {
	status, err := s.Status(ctx)
	if err != nil {
		return nil, err
	}
	now := s.Now()
	streams := s.Streams()
	answer := &stokerv1.GetStatusResponse{
		Version: status.Version, StartTime: message.Time(status.Started), Time: message.Time(now),
		Ready: status.Problem == "", Problem: status.Problem,
		Streams: int64(len(streams)), Leases: int64(status.Leases.Leases), LeasesDry: int64(status.Leases.Dry),
		IssuedLastMinute: int64(status.Issued), RenewedLastMinute: int64(status.Renewed),
	}
	for _, b := range status.Brokers {
		answer.Replicas = append(answer.Replicas, &stokerv1.ReplicaStatus{
			Writer: b.Writer, StartTime: message.Time(b.Started), LastRecordTime: message.Time(b.Last), Answering: b.Writer == status.Writer,
		})
	}
	if status.Leases.HasCredential {
		answer.Emptiest = durationpb.New(status.Leases.Emptiest)
	}
	for _, a := range status.Leases.Accounts {
		about := status.Accounts[a.Name]
		answer.Accounts = append(answer.Accounts, &stokerv1.AccountStatus{
			Name: a.Name, Method: about.Method, Region: about.Region, Down: a.Down, Budget: a.Rate, Limit: a.Limit,
			Due: int64(a.Due), Waiting: int64(a.Waiting), InFlight: int64(a.InFlight), Lag: durationpb.New(a.Lag),
		})
	}
	answer.DrySoon, answer.DrySoonTotal = drySoon(status.Supplies, now)
	answer.Expiring, answer.ExpiringTotal = expiring(streams, now)
	for _, c := range status.Certificates {
		m := &stokerv1.CertificateStatus{Part: c.Name, ExpireTime: message.Time(c.Expires)}
		if c.Err != nil {
			m.Problem = c.Err.Error()
		}
		answer.Certificates = append(answer.Certificates, m)
	}
	for _, r := range status.Revocations {
		switch r.State {
		case storage.RevocationPending:
			answer.RevocationsPending++
		case storage.RevocationFailed:
			answer.RevocationsFailed++
		}
	}
	return answer, nil
}

// drySoon lists the leases of streams that have nothing, or soon will and are
// not being renewed as they should.
func drySoon(supplies []lease.Status, now time.Time) (shown []*stokerv1.SupplyStatus, total int64) {
	dry := slices.DeleteFunc(slices.Clone(supplies), func(s lease.Status) bool {
		failing := s.Problem != "" || now.Sub(s.RenewAt) > overdue
		lasts := s.CredentialID != "" && s.Expires.After(now) && (!failing || s.Expires.Sub(now) > dryWithin)
		return s.Subscriptions == 0 || !s.Entitled || lasts
	})
	slices.SortFunc(dry, func(a, b lease.Status) int {
		return cmp.Or(a.Expires.Compare(b.Expires), cmp.Compare(a.Holder.Tenant, b.Holder.Tenant), cmp.Compare(a.Holder.Agent, b.Holder.Agent), cmp.Compare(a.Grant, b.Grant))
	})
	for _, s := range dry[:min(len(dry), maxShown)] {
		shown = append(shown, &stokerv1.SupplyStatus{
			Tenant: s.Holder.Tenant, Agent: s.Holder.Agent, Login: s.Holder.Login, Grant: s.Grant,
			ExpireTime: message.Time(s.Expires), Problem: string(s.Problem), RetryTime: message.Time(s.RetryAt),
		})
	}
	return shown, int64(len(dry))
}

// expiring lists the certificates of streams that should have been renewed: an
// agent renews at two thirds of the life.
func expiring(streams []Stream, now time.Time) (shown []*stokerv1.AgentCertificateStatus, total int64) {
	seen := map[string]bool{}
	old := slices.DeleteFunc(slices.Clone(streams), func(v Stream) bool {
		life := v.CertificateTo.Sub(v.CertificateFrom)
		twice := seen[v.CertificateSerial]
		seen[v.CertificateSerial] = true
		return twice || v.CertificateTo.IsZero() || v.CertificateTo.Sub(now) >= life/4
	})
	slices.SortFunc(old, func(a, b Stream) int {
		return cmp.Or(a.CertificateTo.Compare(b.CertificateTo), cmp.Compare(a.CertificateSerial, b.CertificateSerial))
	})
	for _, v := range old[:min(len(old), maxShown)] {
		shown = append(shown, &stokerv1.AgentCertificateStatus{
			Tenant: v.Tenant, Agent: v.Agent, CertificateSerial: v.CertificateSerial, ExpireTime: message.Time(v.CertificateTo),
		})
	}
	return shown, int64(len(old))
}
