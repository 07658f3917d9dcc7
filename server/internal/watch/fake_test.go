package watch

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/stokerd/stoker/server/internal/storage"
)

// fakeTrail is a trail in memory. Records become visible when they are
// appended; what they say of their time is the test's.
type fakeTrail struct {
	mu     sync.Mutex
	chains map[string][]storage.AuditRecord
	first  map[string]int64
	// away fails every call.
	away error
	// heads counts calls of AuditHeads.
	heads int
}

func newTrail() *fakeTrail {
	return &fakeTrail{chains: map[string][]storage.AuditRecord{}, first: map[string]int64{}}
}

func (f *fakeTrail) append(writer string, at time.Time, event string) storage.AuditRecord {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := storage.AuditRecord{Writer: writer, Sequence: int64(len(f.chains[writer])) + 1, Time: at.Truncate(time.Microsecond), Event: event}
	f.chains[writer] = append(f.chains[writer], r)
	if f.first[writer] == 0 {
		f.first[writer] = 1
	}
	return r
}

// trim removes the records of a writer below first.
func (f *fakeTrail) trim(writer string, first int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.first[writer] = first
}

func (f *fakeTrail) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.away = err
}

func (f *fakeTrail) looks() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.heads
}

func (f *fakeTrail) AuditHeads(context.Context) ([]storage.AuditHead, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heads++
	var heads []storage.AuditHead
	for writer, chain := range f.chains {
		heads = append(heads, storage.AuditHead{Writer: writer, Sequence: int64(len(chain)), First: f.first[writer]})
	}
	return heads, f.away
}

func (f *fakeTrail) AuditChain(_ context.Context, writer string, from int64, limit int) ([]storage.AuditRecord, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	from = max(from, f.first[writer])
	chain := f.chains[writer]
	if from > int64(len(chain)) {
		return nil, f.away
	}
	return slices.Clone(chain[from-1 : min(len(chain), int(from)-1+limit)]), f.away
}
