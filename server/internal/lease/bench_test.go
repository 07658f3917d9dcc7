package lease

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/issuer"
	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
)

// instantSTS, plainAuthority and plainTrail cost as little as possible, so that
// what is measured is the manager.
type instantSTS struct{}

func (instantSTS) Issue(_ context.Context, r issuer.Request) (issuer.Credential, error) {
	now := time.Now()
	return issuer.Credential{
		AccessKeyID: "ASIA", SecretAccessKey: secret.New("hush"), SessionToken: secret.New("hush"),
		IssuedAt: now, Expires: now.Add(r.Duration),
	}, nil
}

type plainAuthority struct{ ent *Entitlement }

func (a plainAuthority) Entitle(Holder, string) (Entitlement, error)  { return *a.ent, nil }
func (plainAuthority) Revoked(Holder, string, string, time.Time) bool { return false }
func (plainAuthority) RevokedSerial(string) (string, bool)            { return "", false }
func (plainAuthority) Revocation(string) (storage.Revocation, bool) {
	return storage.Revocation{}, false
}
func (plainAuthority) Sync(context.Context) error { return nil }
func (plainAuthority) Healthy() error             { return nil }
func (plainAuthority) Append(_ context.Context, r storage.AuditRecord, _ int64) (storage.AuditRecord, error) {
	return r, nil
}

// FindIssue knows every id.
func (a plainAuthority) FindIssue(_ context.Context, id string) (storage.AuditRecord, error) {
	return storage.AuditRecord{
		Event: string(audit.CredentialIssued), CredentialID: id, TenantID: "t1", UserID: "u1", AgentID: id, GrantID: "g1",
		Account: "main", PolicyHash: a.ent.PolicyHash, Time: time.Now(), Expires: time.Now().Add(hour),
		Detail: map[string]string{detailLocation: describe(a.ent.Location)},
	}, nil
}

func benchManager(b *testing.B) (*Manager, func()) {
	b.Helper()
	a := plainAuthority{&Entitlement{
		Grant: storage.Grant{Meta: storage.Meta{ID: "g1"}, Lifetime: hour}, Location: storage.Location{Meta: storage.Meta{ID: "l1"}, Bucket: "b"},
		Account: "main", Policy: "{}", PolicyHash: "h",
	}}
	m, err := New(Config{
		Accounts:  map[string]Account{"main": {Issuer: instantSTS{}, Rate: 1e6, MinLifetime: time.Minute, MaxLifetime: hour, MaxCalls: 1000}},
		Authority: a, Trail: a, History: a, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error)
	go func() { stopped <- m.Run(ctx) }()
	return m, func() {
		cancel()
		if err := <-stopped; err != nil {
			b.Error(err)
		}
	}
}

func benchHolder(i int) Holder {
	// Ids of a real length, each with its own memory but those that agents
	// share.
	id := func(kind string) string { return fmt.Sprintf("%s-%032d", kind, i) }
	return Holder{
		TenantID: "t1", Tenant: "acme", UserID: "u1", Login: "backup", AgentID: id("a"), Agent: id("agent"), SessionID: id("s"),
		Certificate: Certificate{Serial: id("c"), Thumbprint: id("thumb") + id("print"), NotAfter: time.Now().Add(1000 * hour)},
		Actor:       "spiffe://example.com/tenant/acme/agent/" + id("agent"), Peer: "192.0.2.1:12345",
	}
}

func heap() uint64 {
	var s runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// BenchmarkMemory prints what a lease with one subscription costs, with the
// holder's own texts and without its credential.
func BenchmarkMemory(b *testing.B) {
	const n = 100_000
	for b.Loop() {
		m, stop := benchManager(b)
		holders := make([]Holder, n)
		for i := range holders {
			holders[i] = benchHolder(i)
		}
		texts := heap()
		subs := make([]*Subscription, n)
		for i := range subs {
			subs[i] = m.Subscribe(holders[i], "g1", nil, deaf{})
		}
		for m.count.issued.Load() < n {
			pass(10 * time.Millisecond)
		}
		all := heap()
		credentials := 0
		for _, l := range m.all() {
			l.mu.Lock()
			l.cur, l.subs[0].have = nil, nil
			l.mu.Unlock()
			credentials++
		}
		bare := heap()
		b.ReportMetric(float64(bare-texts)/n, "B/lease")
		b.ReportMetric(float64(all-bare)/n, "B/credential")
		runtime.KeepAlive(subs)
		runtime.KeepAlive(holders)
		stop()
	}
}

// BenchmarkRenewal is one round of renewals of 100,000 leases, from the timers
// to the deliveries: s/Mrenewals is what a million take on all processors
// together.
func BenchmarkRenewal(b *testing.B) {
	const n = 100_000
	m, stop := benchManager(b)
	defer stop()
	for i := range n {
		m.Subscribe(benchHolder(i), "g1", nil, deaf{})
	}
	for m.count.issued.Load() < n {
		pass(10 * time.Millisecond)
	}
	renewed := uint64(0)
	for b.Loop() {
		for _, l := range m.all() {
			l.mu.Lock()
			early := *l.cur
			early.renewAt = 0
			l.cur, l.subs[0].have = &early, &early
			m.settle(l)
			l.mu.Unlock()
		}
		renewed += n
		for m.count.renewed.Load() < renewed {
			pass(time.Millisecond)
		}
	}
	b.ReportMetric(b.Elapsed().Seconds()/float64(renewed)*1e6, "s/Mrenewals")
}

// BenchmarkTimer is the timer alone among 100,000: it fires and is set again.
// s/Mfirings is the processor time of a million.
func BenchmarkTimer(b *testing.B) {
	const n = 100_000
	q := queue{kind: inTimers}
	for i := range n {
		q.put(&lease{}, instant(i*7919%n))
	}
	for b.Loop() {
		e := q.head()
		q.drop(e.lease)
		q.put(e.lease, e.at+n)
	}
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N)*1e6, "s/Mfirings")
}

// BenchmarkWarm is Credential from memory.
func BenchmarkWarm(b *testing.B) {
	m, stop := benchManager(b)
	defer stop()
	const n = 10_000
	holders := make([]Holder, n)
	for i := range holders {
		holders[i] = benchHolder(i)
		if _, err := m.Credential(context.Background(), holders[i], "g1", 0); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, err := m.Credential(context.Background(), holders[i%n], "g1", 0); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

// BenchmarkResume is a reconnect with a held credential, from Subscribe to the
// acceptance.
func BenchmarkResume(b *testing.B) {
	m, stop := benchManager(b)
	defer stop()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		h := benchHolder(i)
		m.Subscribe(h, "g1", &Held{ID: h.AgentID}, deaf{})
	}
	for m.count.resumed.Load() < uint64(i) {
		pass(time.Millisecond)
	}
	b.ReportMetric(b.Elapsed().Seconds()/float64(i)*1e6, "µs/resume")
}

// BenchmarkChanged is a change that takes the right from 10,000 of 100,000
// leases: what passes from the change to the last one told.
func BenchmarkChanged(b *testing.B) {
	m, stop := benchManager(b)
	defer stop()
	for i := range 100_000 {
		h := benchHolder(i)
		h.TenantID = fmt.Sprintf("t%d", i%10)
		m.Subscribe(h, "g1", nil, deaf{})
	}
	for m.count.issued.Load() < 100_000 {
		pass(10 * time.Millisecond)
	}
	for b.Loop() {
		m.Changed([]storage.Change{{Kind: storage.KindTenant, ID: "t3"}})
	}
}
