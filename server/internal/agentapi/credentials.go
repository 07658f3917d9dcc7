package agentapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/carrier"
	"github.com/stokerd/stoker/server/internal/lease"
	"github.com/stokerd/stoker/server/internal/message"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
	"github.com/stokerd/stoker/server/internal/stream"
)

// Streams opens streams; *stream.Registry is one.
type Streams interface {
	Open(p *authn.Principal, c stream.Conn) (*stream.Stream, error)
}

// Directory answers from memory what a caller may ask for; *directory.Directory
// is one.
type Directory interface {
	stream.Finder
	// GrantsFor lists the tenant's grants and the user's own, by name.
	GrantsFor(tenantID, userID string) []storage.Grant
	Location(id string) (storage.Location, bool)
}

// Leases gives single credentials; *lease.Manager is one.
type Leases interface {
	// Credential gives one with at least so much life left; 0 is a third of
	// the grant's lifetime.
	Credential(ctx context.Context, h lease.Holder, grantID string, minLife time.Duration) (lease.Credential, error)
}

// Checker says whether a caller is still good; *authn.Authenticator is one.
type Checker interface {
	Check(authn.Principal) error
}

const (
	// maxGrants bounds the grants of one call.
	maxGrants = 100
	// fetchers is how many of a call's credentials are waited for at once.
	fetchers = 8
)

// CredentialService implements the service of that name.
type CredentialService struct {
	stokerv1.UnsafeCredentialServiceServer
	cfg CredentialConfig
}

// CredentialConfig is what a CredentialService needs: all of it.
type CredentialConfig struct {
	Streams   Streams
	Directory Directory
	Leases    Leases
	Checker   Checker
	Log       *slog.Logger
}

// NewCredentialService makes the service.
func NewCredentialService(c CredentialConfig) (*CredentialService, error) {
	if c.Streams == nil || c.Directory == nil || c.Leases == nil || c.Checker == nil || c.Log == nil {
		return nil, errors.New("credential service: streams, directory, leases, checker and log are all required")
	}
	return &CredentialService{cfg: c}, nil
}

// streamCall is one call of StreamCredentials.
type streamCall = grpc.BidiStreamingServer[stokerv1.StreamCredentialsRequest, stokerv1.StreamCredentialsResponse]

// StreamCredentials implements the call. This goroutine receives, and is the
// only one that an idle stream has.
func (s *CredentialService) StreamCredentials(call streamCall) error {
	var opened *stream.Stream
	err := carrier.Apart(func() (err error) {
		opened, err = s.open(call)
		return err
	})
	if err != nil {
		return err
	}
	return opened.Close(receive(call, opened))
}

// open opens the stream of a call.
func (s *CredentialService) open(call streamCall) (*stream.Stream, error) {
	p, ok := authn.SharedPrincipal(call.Context())
	if !ok {
		return nil, errNotAuthenticated
	}
	c, err := carrier.ConnOf(call.Context(), call.Send, s.cfg.Log)
	if err != nil {
		return nil, err
	}
	return s.cfg.Streams.Open(p, c)
}

// receive carries out the agent's messages until the call ends.
func receive(call streamCall, to *stream.Stream) error {
	for {
		m, err := call.Recv()
		if errors.Is(err, io.EOF) {
			if err := to.HalfClosed(); err != nil {
				return err
			}
			return carrier.Wait(call.Context())
		}
		if err != nil {
			return err
		}
		if err := handle(m, to); err != nil {
			return err
		}
	}
}

// handle carries out one message. Subscribing reaches far, and happens once or
// twice; an acknowledgement comes with each credential.
func handle(m *stokerv1.StreamCredentialsRequest, to *stream.Stream) error {
	if m.GetSubscribe() != nil {
		return carrier.Apart(func() error { return to.Handle(request(m)) })
	}
	return to.Handle(request(m))
}

// GetCredentials implements the call.
func (s *CredentialService) GetCredentials(ctx context.Context, r *stokerv1.GetCredentialsRequest) (*stokerv1.GetCredentialsResponse, error) {
	p, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	minLife, err := life(r)
	if err != nil {
		return nil, err
	}
	grants, err := s.grants(p, r.GetGrants())
	if err != nil {
		return nil, err
	}
	got, err := s.fetch(ctx, p, grants, minLife)
	if err != nil {
		return nil, err
	}
	// Some may have taken a while, and all leave together.
	if err := s.cfg.Checker.Check(p); err != nil {
		return nil, err
	}
	answer := &stokerv1.GetCredentialsResponse{Credentials: make([]*stokerv1.Credential, len(got))}
	for i := range got {
		answer.Credentials[i] = message.Credential(&got[i])
	}
	return answer, nil
}

// life reads the least life that is asked for; 0 where nothing is.
func life(r *stokerv1.GetCredentialsRequest) (time.Duration, error) {
	d := r.GetMinLife()
	if d == nil {
		return 0, nil
	}
	if err := d.CheckValid(); err != nil || d.AsDuration() < 0 {
		return 0, reason.New(reason.InvalidRequest, "min_life: not a time from now on")
	}
	return d.AsDuration(), nil
}

// grants finds the named grants, in that order; no names stand for all that
// are enabled.
func (s *CredentialService) grants(p authn.Principal, names []string) ([]storage.Grant, error) {
	if len(names) > maxGrants {
		return nil, reason.New(reason.InvalidRequest, "grants: name at most %d", maxGrants)
	}
	if err := stream.CheckNames("grants", names); err != nil {
		return nil, err
	}
	if len(names) == 0 {
		all := s.enabled(p)
		if len(all) > maxGrants {
			return nil, reason.New(reason.InvalidRequest, "grants: you have %d; name at most %d of them", len(all), maxGrants)
		}
		return all, nil
	}
	found := make([]storage.Grant, len(names))
	for i, name := range names {
		g, err := stream.Find(s.cfg.Directory, p, name)
		if err != nil {
			return nil, err
		}
		found[i] = g
	}
	return found, nil
}

// enabled lists the caller's grants that are not disabled.
func (s *CredentialService) enabled(p authn.Principal) []storage.Grant {
	return slices.DeleteFunc(s.cfg.Directory.GrantsFor(p.TenantID, p.UserID), func(g storage.Grant) bool { return g.Disabled })
}

// fetch gets a credential for each grant, or the error of one that has none.
// What was quick may have waited for what was slow, and may not be allowed any
// more: all are asked for again, from memory, until that finds them as they
// are.
func (s *CredentialService) fetch(ctx context.Context, p authn.Principal, grants []storage.Grant, minLife time.Duration) ([]lease.Credential, error) {
	got, err := s.gather(ctx, p, grants, minLife)
	for err == nil && len(grants) > 1 {
		before := got
		if got, err = s.gather(ctx, p, grants, 0); err == nil && slices.EqualFunc(got, before, same) {
			break
		}
	}
	return got, err
}

func same(a, b lease.Credential) bool { return a.ID == b.ID }

// gather asks for one credential of each grant.
func (s *CredentialService) gather(ctx context.Context, p authn.Principal, grants []storage.Grant, minLife time.Duration) ([]lease.Credential, error) {
	holder := stream.HolderOf(p)
	got := make([]lease.Credential, len(grants))
	if len(grants) == 1 {
		// The usual call, without more goroutines.
		return got, s.get(ctx, holder, &grants[0], minLife, &got[0])
	}
	return got, s.getAll(ctx, holder, grants, minLife, got)
}

// getAll gets those of several grants, some at once.
func (s *CredentialService) getAll(ctx context.Context, h lease.Holder, grants []storage.Grant, minLife time.Duration, got []lease.Credential) error {
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(fetchers)
	for i := range grants {
		all.Go(func() error { return s.get(ctx, h, &grants[i], minLife, &got[i]) })
	}
	return all.Wait()
}

func (s *CredentialService) get(ctx context.Context, h lease.Holder, g *storage.Grant, minLife time.Duration, got *lease.Credential) (err error) {
	*got, err = s.cfg.Leases.Credential(ctx, h, g.ID, minLife)
	return naming(g.Name, err)
}

// naming adds the grant's name to what the caller is told.
func naming(grant string, err error) error {
	if err == nil {
		return nil
	}
	var known *reason.Error
	if errors.As(err, &known) {
		return known.With("grant", grant)
	}
	return fmt.Errorf("grant %s: %w", grant, err)
}

// ListGrants implements the call.
func (s *CredentialService) ListGrants(ctx context.Context, _ *stokerv1.ListGrantsRequest) (*stokerv1.ListGrantsResponse, error) {
	p, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	answer := &stokerv1.ListGrantsResponse{}
	for _, g := range s.enabled(p) {
		// A grant keeps its location from being deleted: if that is gone the
		// grant has gone since it was listed.
		if l, ok := s.cfg.Directory.Location(g.LocationID); ok {
			answer.Grants = append(answer.Grants, summary(g, l))
		}
	}
	return answer, nil
}

var errNotAuthenticated = errors.New("the call was not authenticated: its interceptor is missing")

// caller gives the principal that the call was authenticated as.
func caller(ctx context.Context) (authn.Principal, error) {
	p, ok := authn.PrincipalFrom(ctx)
	if !ok {
		return authn.Principal{}, errNotAuthenticated
	}
	return p, nil
}
