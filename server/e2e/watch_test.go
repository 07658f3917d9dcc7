package e2e_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/stokerd/stoker/internal/partner/postgres"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/brokertest"
)

// watching reads a watch's records into a channel, which closes with the watch.
type watching struct {
	records chan *stokerv1.AuditRecord
	cursor  string // valid once records is closed
	stop    context.CancelFunc
}

// watchEvents begins a watch, and returns once it is told that it has begun.
func watchEvents(ctx context.Context, t *testing.T, b *brokertest.Broker, r *stokerv1.WatchEventsRequest) *watching {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	t.Cleanup(cancel)
	call, err := stokerv1.NewFleetServiceClient(b.Admin).WatchEvents(ctx, r)
	must(t, err)
	first, err := call.Recv()
	must(t, err)
	w := &watching{records: make(chan *stokerv1.AuditRecord, 100), cursor: first.GetCursor(), stop: cancel}
	go func() {
		defer close(w.records)
		for {
			m, err := call.Recv()
			if err != nil {
				return
			}
			w.cursor = m.GetCursor()
			if m.GetRecord() != nil {
				w.records <- m.GetRecord()
			}
		}
	}()
	return w
}

func (w *watching) next(ctx context.Context, t *testing.T) *stokerv1.AuditRecord {
	t.Helper()
	select {
	case r, ok := <-w.records:
		if !ok {
			t.Fatal("the watch ended")
		}
		return r
	case <-ctx.Done():
		t.Fatal("waited in vain for a record")
	}
	return nil
}

// Whoever watches one replica sees what happens on every one, in the order of
// each, and goes on at another where the watch broke off.
func TestWatchOverReplicas(t *testing.T) {
	a, b, _ := replicated(t, postgres.Start(t).Database(t))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	updates := &stokerv1.WatchEventsRequest{Events: []string{"admin.updated"}, Tenant: "acme"}
	name := func(by *brokertest.Broker, display string) {
		t.Helper()
		_, err := stokerv1.NewTenantServiceClient(by.Admin).UpdateTenant(ctx, &stokerv1.UpdateTenantRequest{
			Tenant: &stokerv1.Tenant{Name: "acme", DisplayName: display}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"display_name"}},
		})
		must(t, err)
	}
	shown := func(r *stokerv1.AuditRecord) string { return r.GetDetail()["new.display_name"] }

	onA, onB := watchEvents(ctx, t, a, updates), watchEvents(ctx, t, b, updates)
	name(a, "one")
	writers := map[string]bool{}
	for _, w := range []*watching{onA, onB} {
		r := w.next(ctx, t)
		writers[r.GetWriter()] = true
		if shown(r) != "one" {
			t.Errorf("saw %v", r)
		}
	}
	name(b, "two")
	for _, w := range []*watching{onA, onB} {
		r := w.next(ctx, t)
		writers[r.GetWriter()] = true
		if shown(r) != "two" {
			t.Errorf("saw %v", r)
		}
	}
	if len(writers) != 2 {
		t.Errorf("the records are of %d writers", len(writers))
	}

	// The watch on A breaks off; what happens on both meanwhile is told by B,
	// once each.
	onA.stop()
	for range onA.records {
	}
	name(a, "three")
	name(b, "four")
	name(a, "five")
	resumed := watchEvents(ctx, t, b, &stokerv1.WatchEventsRequest{Events: updates.Events, Tenant: "acme", Cursor: onA.cursor})
	got := []string{shown(resumed.next(ctx, t)), shown(resumed.next(ctx, t)), shown(resumed.next(ctx, t))}
	if slices.Index(got, "three") > slices.Index(got, "five") {
		t.Errorf("A's records came in the order %v", got)
	}
	slices.Sort(got)
	if !slices.Equal(got, []string{"five", "four", "three"}) {
		t.Errorf("saw %v", got)
	}
	name(b, "six")
	if r := resumed.next(ctx, t); shown(r) != "six" {
		t.Errorf("saw %v", r)
	}
}
