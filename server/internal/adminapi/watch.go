package adminapi

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
	"github.com/stokerd/stoker/server/internal/watch"
)

const (
	// maxWatches is how many watches one replica serves at a time.
	maxWatches = 64
	// maxCursor bounds a cursor, in characters.
	maxCursor = 8192
	// crowded is how long a caller waits when there are too many watches.
	crowded = 10 * time.Second
)

// Watcher follows the audit trail of all replicas.
type Watcher interface {
	Follow(ctx context.Context, r watch.Request) error
}

// cursors binds cursors of watches to their call alone: a watch may go on with
// other filters.
var cursors = list{"events"}

// WatchEvents implements stokerv1.FleetServiceServer.
func (s fleet) WatchEvents(r *stokerv1.WatchEventsRequest, out grpc.ServerStreamingServer[stokerv1.WatchEventsResponse]) error {
	request, err := s.readWatch(r)
	if err != nil {
		return err
	}
	select {
	case s.watching <- struct{}{}:
		defer func() { <-s.watching }()
	default:
		return reason.New(reason.RateLimited, "%d watches are open on this replica, and more are not served; wait for one to end", maxWatches).After(crowded)
	}
	ctx, stop := s.untilStopping(out.Context())
	defer stop()
	caller, _ := authn.PrincipalFrom(ctx)
	request.Alive = func() error { return s.Recheck(caller) }
	request.Tell = func(n watch.News) error {
		m := &stokerv1.WatchEventsResponse{Cursor: s.pages.token(cursors, string(n.Position)), TrimmedRecords: n.Trimmed}
		if n.Record != nil {
			m.Record = recordMessage(*n.Record)
		}
		return out.Send(m)
	}
	return s.Events.Follow(ctx, request)
}

// untilStopping ends with the broker's own end, and says so.
func (a *API) untilStopping(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-a.Stopping:
			cancel(reason.New(reason.Draining, "the broker is stopping; go on at another with the last cursor"))
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// readWatch checks a request.
func (s fleet) readWatch(r *stokerv1.WatchEventsRequest) (watch.Request, error) {
	filter, err := readFilter(&stokerv1.ListRecordsRequest{
		Events: r.GetEvents(), Tenant: r.GetTenant(), Login: r.GetLogin(), Agent: r.GetAgent(), Grant: r.GetGrant(),
	})
	if err != nil {
		return watch.Request{}, err
	}
	since, err := readTime("since_time", r.GetSinceTime())
	if err != nil {
		return watch.Request{}, err
	}
	if r.GetCursor() != "" && !since.IsZero() {
		return watch.Request{}, invalid("since_time", "goes without a cursor, which says itself where to begin; leave one of them out")
	}
	place, err := s.pages.read(cursors, "cursor", r.GetCursor(), maxCursor)
	if err != nil {
		return watch.Request{}, err
	}
	return watch.Request{From: watch.Position(place), Since: since, Wanted: selects(filter)}, nil
}

// selects is what the filter does, on one record.
func selects(f storage.AuditFilter) func(storage.AuditRecord) bool {
	return func(r storage.AuditRecord) bool {
		return (len(f.Events) == 0 || slices.Contains(f.Events, r.Event)) &&
			(f.Tenant == "" || f.Tenant == r.Tenant) && (f.Login == "" || f.Login == r.Login) &&
			(f.Agent == "" || f.Agent == r.Agent) && (f.Grant == "" || f.Grant == r.Grant)
	}
}
