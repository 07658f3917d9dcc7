package directory_test

import (
	"fmt"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/directory"
	"github.com/stokerd/stoker/server/internal/storage"
)

// uuid makes an id of the usual length, in memory of its own as one that was
// read from a database is.
func uuid(kind, i int) string { return fmt.Sprintf("0198c0de-%04d-7000-8000-%012d", kind, i) }

// fleet is a store with so many agents, a tenant with a user and two grants
// for every eight of them.
func fleet(agents int) *fake {
	const perTenant = 8
	now := time.Now().UTC()
	stamp := func(kind, i int) storage.Meta {
		return storage.Meta{ID: uuid(kind, i), Revision: 1, CreatedAt: now, UpdatedAt: now}
	}
	f := newFake()
	f.commit(put(storage.Location{Meta: stamp(5, 0), Name: "west"}))
	for i := range agents {
		tenant := i / perTenant
		if i%perTenant == 0 {
			f.commit(put(storage.Tenant{Meta: stamp(1, tenant), Name: fmt.Sprint("tenant-", tenant)}),
				put(storage.User{Meta: stamp(2, tenant), TenantID: uuid(1, tenant), Login: fmt.Sprint("user-", tenant)}),
				put(storage.Grant{Meta: stamp(3, 2*tenant), TenantID: uuid(1, tenant), Name: "nightly", LocationID: uuid(5, 0)}),
				put(storage.Grant{Meta: stamp(3, 2*tenant+1), TenantID: uuid(1, tenant), Name: "weekly", LocationID: uuid(5, 0)}))
		}
		f.commit(put(storage.Agent{Meta: stamp(4, i), TenantID: uuid(1, tenant), Name: fmt.Sprintf("host-%06d.example", i)}))
	}
	return f
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkMemory reports what a directory of 80,000 agents holds, with their
// 10,000 tenants, 10,000 users and 20,000 grants.
func BenchmarkMemory(b *testing.B) {
	const agents = 80_000
	for b.Loop() {
		before := heap()
		// The strings are the fake's as well as the directory's: dropping the
		// fake leaves those that the directory alone keeps alive.
		f := fleet(agents)
		d, err := directory.Open(b.Context(), f, slog.New(slog.DiscardHandler))
		if err != nil {
			b.Fatal(err)
		}
		f.entities, f.feed = nil, nil
		held := heap() - before
		b.ReportMetric(float64(held)/agents, "B/agent")
		b.ReportMetric(float64(held)/(1<<20), "MiB")
		runtime.KeepAlive(d)
	}
}

func BenchmarkLookUps(b *testing.B) {
	d, err := directory.Open(b.Context(), fleet(80_000), slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	tenant, agent := uuid(1, 77), uuid(4, 619)
	b.Run("agent", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, ok := d.Agent(agent); !ok {
					b.Error("no agent")
				}
			}
		})
	})
	b.Run("grants", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if len(d.GrantsFor(tenant, "")) != 2 {
				b.Fatal("no grants")
			}
		}
	})
}

// BenchmarkFollow applies 10,000 changed agents of 80,000.
func BenchmarkFollow(b *testing.B) {
	f := fleet(80_000)
	d := start(b, f)
	var writes []write
	for i := range 10_000 {
		writes = append(writes, put(storage.Agent{Meta: meta(uuid(4, i)), TenantID: uuid(1, i/8), Name: fmt.Sprintf("host-%06d.example", i)}))
	}
	for b.Loop() {
		f.commit(writes...)
		synced(b, d)
	}
}
