package adminapi_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/admintest"
	"github.com/stokerd/stoker/server/internal/adminapi"
	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/reason"
)

type watching struct {
	grpc.ServerStreamingClient[stokerv1.WatchEventsResponse]
	stop context.CancelFunc
}

// watch opens a watch that ends with the test at the latest, and reads its
// first answer, which says that it has begun.
func (c clients) watch(t *testing.T, r *stokerv1.WatchEventsRequest) (watching, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	w := watching{must(c.fleet.WatchEvents(ctx, r))(t), cancel}
	first := must(w.Recv())(t)
	if first.GetRecord() != nil || first.GetCursor() == "" {
		t.Fatalf("the first answer is %v", first)
	}
	return w, first.GetCursor()
}

// next gives the next n records, shortened, and the last cursor.
func (w watching) next(t *testing.T, n int) (got []string, cursor string) {
	t.Helper()
	for len(got) < n {
		m := must(w.Recv())(t)
		if r := m.GetRecord(); r != nil {
			got, cursor = append(got, r.GetEvent()+" "+r.GetDetail()["name"]), m.GetCursor()
		}
	}
	return got, cursor
}

// With two replicas a watch on either tells what both do, and one on the other
// goes on where the first ended.
func TestWatchEvents(t *testing.T) {
	c := start(t, nil)
	other := as(t, admintest.Start(t, admintest.Options{Share: c.Broker}), admintest.Viewer)
	begun := time.Now()
	w, _ := other.watch(t, &stokerv1.WatchEventsRequest{Events: []string{"admin.created", "admin.deleted"}})
	c.populate(t)
	got, cursor := w.next(t, 4)
	if want := []string{"admin.created acme", "admin.created nightly@acme", "admin.created acme/server-1", "admin.created borg"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if len(cursor) > 8192 {
		t.Errorf("a cursor of %d characters", len(cursor))
	}
	w.stop()
	want := []string{"admin.created nightly@borg", "admin.created borg/server-1", "admin.created frankfurt", "admin.created acme/photos"}
	again, _ := c.watch(t, &stokerv1.WatchEventsRequest{Cursor: cursor, Events: []string{"admin.created"}})
	if got, _ := again.next(t, 4); !slices.Equal(got, want) {
		t.Errorf("resumed: got %q, want %q", got, want)
	}
	since, _ := c.watch(t, &stokerv1.WatchEventsRequest{SinceTime: timestamppb.New(begun.Add(-time.Second)), Tenant: "borg", Agent: "server-1"})
	if got, _ := since.next(t, 1); !slices.Equal(got, []string{"admin.created borg/server-1"}) {
		t.Errorf("since: got %q", got)
	}
}

func TestWatchEventsRefuses(t *testing.T) {
	c := start(t, nil)
	c.populate(t)
	page := must(c.tenants.ListTenants(t.Context(), &stokerv1.ListTenantsRequest{PageSize: 1}))(t).GetNextPageToken()
	_, cursor := c.watch(t, &stokerv1.WatchEventsRequest{})
	long := strings.Repeat("x", 200)
	for name, test := range map[string]struct {
		r    *stokerv1.WatchEventsRequest
		text string
	}{
		"a page token":      {&stokerv1.WatchEventsRequest{Cursor: page}, "cursor is not one that this list gave out"},
		"a forged cursor":   {&stokerv1.WatchEventsRequest{Cursor: "A" + cursor[1:]}, "cursor is not one that this list gave out"},
		"a cut cursor":      {&stokerv1.WatchEventsRequest{Cursor: cursor[:len(cursor)-4]}, "cursor is not one that this list gave out"},
		"a long cursor":     {&stokerv1.WatchEventsRequest{Cursor: strings.Repeat("A", 9000)}, "cursor is not one that this list gave out"},
		"cursor and time":   {&stokerv1.WatchEventsRequest{Cursor: cursor, SinceTime: timestamppb.Now()}, "since_time goes without a cursor"},
		"no time":           {&stokerv1.WatchEventsRequest{SinceTime: &timestamppb.Timestamp{Seconds: -1 << 60}}, "since_time is no time"},
		"an empty event":    {&stokerv1.WatchEventsRequest{Events: []string{""}}, "events has an empty name"},
		"too many events":   {&stokerv1.WatchEventsRequest{Events: make([]string, 101)}, "events has 101 names"},
		"a long tenant":     {&stokerv1.WatchEventsRequest{Tenant: long}, "tenant has 200 characters"},
		"a login to no eye": {&stokerv1.WatchEventsRequest{Login: "a\x00b"}, "login has the character"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := must(c.fleet.WatchEvents(t.Context(), test.r))(t).Recv()
			refused(t, err, reason.InvalidRequest, test.text)
		})
	}
	// Nor does a cursor serve as a page token.
	_, err := c.audit.ListRecords(t.Context(), &stokerv1.ListRecordsRequest{PageToken: cursor})
	refused(t, err, reason.InvalidRequest, "page_token")
}

func TestWatchEventsEndsWithItsCallersRight(t *testing.T) {
	var revoked atomic.Bool
	c := start(t, func(c *adminapi.Config) {
		c.Recheck = func(p authn.Principal) error {
			if p.Name != admintest.Admin {
				return errors.New("another caller is asked about")
			}
			if revoked.Load() {
				return reason.New(reason.CertificateRevoked, "the certificate was revoked")
			}
			return nil
		}
	})
	w, _ := c.watch(t, &stokerv1.WatchEventsRequest{})
	revoked.Store(true)
	_, err := w.Recv()
	refused(t, err, reason.CertificateRevoked, "the certificate was revoked")
}

func TestWatchEventsEndsWithTheBroker(t *testing.T) {
	stopping := make(chan struct{})
	c := start(t, func(c *adminapi.Config) { c.Stopping = stopping })
	w, _ := c.watch(t, &stokerv1.WatchEventsRequest{})
	close(stopping)
	_, err := w.Recv()
	refused(t, err, reason.Draining, "go on at another with the last cursor")
}

func TestWatchesAreLimited(t *testing.T) {
	c := start(t, nil)
	var open []watching
	for range 64 {
		w, _ := c.watch(t, &stokerv1.WatchEventsRequest{})
		open = append(open, w)
	}
	_, err := must(c.fleet.WatchEvents(t.Context(), &stokerv1.WatchEventsRequest{}))(t).Recv()
	refused(t, err, reason.RateLimited, "64 watches are open")
	open[0].stop()
	for {
		_, err := must(c.fleet.WatchEvents(t.Context(), &stokerv1.WatchEventsRequest{}))(t).Recv()
		if err == nil {
			return
		}
		if status.Code(err) != codes.ResourceExhausted {
			t.Fatal(err)
		}
	}
}

// A watcher who does not read holds up neither the trail nor other watchers.
func TestAWatcherWhoDoesNotReadHoldsNothingBack(t *testing.T) {
	c := start(t, nil)
	stuck, _ := c.watch(t, &stokerv1.WatchEventsRequest{})
	quick, _ := c.watch(t, &stokerv1.WatchEventsRequest{Events: []string{"admin.created"}})
	names := make([]string, 0, 300)
	for i := range 300 {
		// Large records fill the stuck one's window.
		must(c.tenants.CreateTenant(t.Context(), &stokerv1.CreateTenantRequest{
			Tenant: &stokerv1.Tenant{Name: fmt.Sprint("t", i), DisplayName: strings.Repeat("ä", 120)},
		}))(t)
		names = append(names, fmt.Sprint("admin.created t", i))
	}
	if got, _ := quick.next(t, 300); !slices.Equal(got, names) {
		t.Errorf("got %d records, want 300 in order", len(got))
	}
	if got, _ := stuck.next(t, 300); len(got) != 300 {
		t.Errorf("the slow watcher got %d records", len(got))
	}
}
