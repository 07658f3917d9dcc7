package stream

import (
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/google/uuid"

	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/lease"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// A tenant with ten thousand streams is cut off at once. The times are printed
// and not asserted: they depend on the machine, and on what else it does.
func TestRevokeTenThousand(t *testing.T) {
	const n = 10_000
	b := newBroker(t, func(c *Config) { c.Log = slog.New(slog.DiscardHandler) })
	b.grants("a")
	b.leases.issue("a")
	agents := make([]*agent, n)
	for i := range agents {
		agents[i] = b.connect(principal(i), Subscribe{})
	}
	b.checker.refuse("t1", reason.TenantDisabled)
	begun := time.Now()
	b.Changed(change(storage.KindTenant, "t1"))
	acknowledged := time.Since(begun)
	for _, a := range agents {
		<-a.done
	}
	all := time.Since(begun)
	for i, a := range agents {
		if !reason.Is(a.reason, reason.TenantDisabled) {
			t.Fatalf("agent %d was told %v", i, a.reason)
		}
	}
	t.Logf("%d streams: Changed returned after %s, the last one had ended after %s", n, acknowledged.Round(time.Microsecond), all.Round(time.Microsecond))
}

// nobody is a call without an agent; still is a subscription without a lease.
type (
	nobody struct{}
	still  struct{}
)

func (nobody) Send(Message) error { return nil }
func (nobody) Finish(error)       {}

func (still) Acknowledge(string)           {}
func (still) Refused(string, string) error { return nil }
func (still) Supply() lease.Supply         { return lease.Supply{} }
func (still) Close()                       {}

func (still) Subscribe(lease.Holder, string, *lease.Held, lease.Subscriber) Subscription {
	return still{}
}

// realistic is a principal with texts as long as they are, none shared with
// another.
func realistic(i int) authn.Principal {
	p := principal(i)
	p.Certificate.Serial = strings.Repeat(fmt.Sprintf("%08x", i), 4)
	p.Certificate.Thumbprint = strings.Repeat(fmt.Sprintf("%08x", i), 8)
	p.TenantID, p.AgentID, p.UserID, p.SessionID = uuid.NewString(), uuid.NewString(), uuid.NewString(), uuid.NewString()
	p.SessionExpires = p.Certificate.NotAfter
	return p
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkIdleStream says what an idle stream with one grant costs the heap:
// the stream with its places in the index, the timers and the watched grants,
// without the lease and the call. No two streams share a tenant or a grant.
func BenchmarkIdleStream(b *testing.B) {
	directory := &fakeDirectory{grants: map[string]storage.Grant{}}
	r, err := New(Config{
		Directory: directory, Checker: &fakeChecker{}, Leases: still{}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	n := max(b.N, 20_000)
	principals := make([]authn.Principal, n)
	before := heap()
	for i := range principals {
		principals[i] = realistic(i)
	}
	callers := heap()
	streams := make([]*Stream, n)
	b.ResetTimer()
	for i := range principals {
		s, err := r.Open(&principals[i], nobody{})
		if err != nil {
			b.Fatal(err)
		}
		// The grants are looked up by a fake that is slow with many.
		g := storage.Grant{Meta: storage.Meta{ID: uuid.NewString()}, TenantID: principals[i].TenantID, Name: "nightly"}
		directory.grants = map[string]storage.Grant{g.ID: g}
		if err := s.Handle(Subscribe{Grants: []string{"nightly"}, Client: "stoker-agent/1.4 linux"}); err != nil {
			b.Fatal(err)
		}
		streams[i] = s
	}
	b.StopTimer()
	for _, s := range streams {
		for working(s) {
			runtime.Gosched()
		}
	}
	after := heap()
	b.ReportMetric(float64(after-callers)/float64(n)-float64(unsafe.Sizeof(streams[0])), "B/stream")
	b.ReportMetric(float64(callers-before)/float64(n), "B/caller")
	b.ReportMetric(float64(unsafe.Sizeof(Stream{})), "B/Stream{}")
	b.ReportMetric(float64(unsafe.Sizeof(entry{})), "B/entry{}")
	for _, s := range streams {
		if err := s.Close(nil); err != nil {
			b.Fatal(err)
		}
	}
	runtime.KeepAlive(principals)
}

func working(s *Stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.working
}

// BenchmarkPush says what a credential costs from the lease's delivery to the
// call's Send, the goroutine for it included.
func BenchmarkPush(b *testing.B) {
	directory := &fakeDirectory{grants: map[string]storage.Grant{}}
	directory.put(storage.Grant{Meta: storage.Meta{ID: "a"}, TenantID: "t1", Name: "a"})
	leases := &fakeLeases{current: map[string]*lease.Credential{}, subs: map[*fakeSubscription]struct{}{}}
	r, err := New(Config{Directory: directory, Checker: &fakeChecker{}, Leases: leases, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	var sent sync.WaitGroup
	s, err := r.Open(new(principal(1)), counted{&sent})
	if err != nil {
		b.Fatal(err)
	}
	sent.Add(1)
	if err := s.Handle(Subscribe{}); err != nil {
		b.Fatal(err)
	}
	sent.Wait()
	b.ReportAllocs()
	for b.Loop() {
		sent.Add(1)
		leases.issue("a")
		sent.Wait()
	}
	_ = s.Close(nil)
}

type counted struct{ sent *sync.WaitGroup }

func (c counted) Send(Message) error { c.sent.Done(); return nil }
func (counted) Finish(error)         {}
