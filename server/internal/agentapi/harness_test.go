package agentapi_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/stokerd/stoker/internal/loopback"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/agentapi"
	"github.com/stokerd/stoker/server/internal/apierr"
	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/lease"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
	"github.com/stokerd/stoker/server/internal/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is everything behind the API: a directory, leases and an
// authenticator, each small and working.
type world struct {
	mu      sync.Mutex
	grants  map[string]storage.Grant
	refused map[string]*reason.Error // by an id of the principal
	subs    map[*subscription]struct{}
	current map[string]*lease.Credential // by grant id
	// fetch answers Credential; nil: with current.
	fetch func(ctx context.Context, grantID string, minLife time.Duration) (lease.Credential, error)
	ended []string
}

type subscription struct {
	world   *world
	grantID string
	held    *lease.Held
	to      lease.Subscriber
	acked   string
}

func newWorld() *world {
	return &world{
		grants: map[string]storage.Grant{}, refused: map[string]*reason.Error{},
		subs: map[*subscription]struct{}{}, current: map[string]*lease.Credential{},
	}
}

var location = storage.Location{
	Meta: storage.Meta{ID: "l"}, Name: "west", Bucket: "backups", Region: "eu-west-1",
	Endpoint: "https://s3.example", KMSKeyARN: "arn:aws:kms:eu-west-1:111122223333:key/k",
}

func (w *world) grant(names ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range names {
		w.grants[name] = storage.Grant{
			Meta: storage.Meta{ID: name}, TenantID: "t1", Name: name, LocationID: "l",
			Prefix: "tenant-1/" + name + "/", Access: "backup", Lifetime: time.Hour,
		}
	}
}

func (w *world) GrantByName(tenantID, name string) (storage.Grant, bool) {
	g, ok := w.Grant(name)
	return g, ok && g.TenantID == tenantID
}

func (w *world) Grant(id string) (storage.Grant, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	g, ok := w.grants[id]
	return g, ok
}

func (w *world) GrantsFor(tenantID, _ string) []storage.Grant {
	var list []storage.Grant
	for _, name := range []string{"a", "b", "c", "d"} {
		if g, ok := w.GrantByName(tenantID, name); ok {
			list = append(list, g)
		}
	}
	return list
}

func (w *world) Location(id string) (storage.Location, bool) { return location, id == "l" }

func (w *world) RevokedCertificate(string) (storage.Certificate, bool) {
	return storage.Certificate{}, false
}

func (w *world) Check(p authn.Principal) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range []string{p.TenantID, p.AgentID} {
		if err := w.refused[id]; err != nil {
			return err
		}
	}
	return nil
}

func (w *world) refuse(id string, r reason.Reason) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refused[id] = reason.New(r, "refused for the test").With("id", id)
}

func (w *world) Subscribe(_ lease.Holder, grantID string, held *lease.Held, to lease.Subscriber) stream.Subscription {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := &subscription{world: w, grantID: grantID, held: held, to: to}
	w.subs[s] = struct{}{}
	if c := w.current[grantID]; c != nil {
		to.Deliver(lease.Event{Credential: c})
	}
	return s
}

func (s *subscription) Acknowledge(id string) {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	s.acked = id
}

func (s *subscription) Refused(string, string) error {
	return reason.New(reason.ReportTooFrequent, "wait").After(20 * time.Second)
}

func (s *subscription) Supply() lease.Supply { return lease.Supply{} }

func (s *subscription) Close() {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	delete(s.world.subs, s)
}

// deliver tells everybody who is subscribed to the grant, and says to how many
// that was.
func (w *world) deliver(grantID string, event lease.Event) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for s := range w.subs {
		if s.grantID == grantID {
			s.to.Deliver(event)
			n++
		}
	}
	return n
}

var issued struct {
	sync.Mutex
	last time.Time
}

// newCredential makes one that is newer than those before, with a session
// token of that size.
func newCredential(grantID string, size int) *lease.Credential {
	issued.Lock()
	defer issued.Unlock()
	now := time.Now().UTC()
	if !now.After(issued.last) {
		now = issued.last.Add(time.Microsecond)
	}
	issued.last = now
	return &lease.Credential{
		ID: uuid.Must(uuid.NewV7()).String(), GrantID: grantID, Grant: grantID,
		AccessKeyID: "ASIAEXAMPLE", SecretAccessKey: secret.New("secret-key"), SessionToken: secret.New(string(make([]byte, size))),
		IssuedAt: now, Expires: now.Add(time.Hour), Location: location, Prefix: "tenant-1/" + grantID + "/", Access: "backup",
	}
}

func (w *world) issue(grantID string, size int) *lease.Credential {
	c := newCredential(grantID, size)
	w.mu.Lock()
	w.current[grantID] = c
	w.mu.Unlock()
	w.deliver(grantID, lease.Event{Credential: c})
	return c
}

func (w *world) Credential(ctx context.Context, _ lease.Holder, grantID string, minLife time.Duration) (lease.Credential, error) {
	w.mu.Lock()
	fetch, c := w.fetch, w.current[grantID]
	w.mu.Unlock()
	if fetch != nil {
		return fetch(ctx, grantID, minLife)
	}
	if c == nil {
		return lease.Credential{}, reason.New(reason.STSThrottled, "no credential").After(time.Second)
	}
	return *c, nil
}

func (w *world) CreateSession(_ context.Context, p authn.Principal) (authn.Session, error) {
	if err := w.Check(p); err != nil {
		return authn.Session{}, err
	}
	return authn.Session{ID: "session-1", Token: secret.New("the-token"), Expires: sessionEnd}, nil
}

func (w *world) EndSession(_ context.Context, p authn.Principal) error {
	if err := w.Check(p); err != nil {
		return err
	}
	w.ended = append(w.ended, p.SessionID)
	return nil
}

var (
	certificateEnd = time.Now().Add(24 * time.Hour).UTC().Truncate(time.Second)
	sessionEnd     = time.Now().Add(12 * time.Hour).UTC().Truncate(time.Second)
)

// caller is who the interceptor takes everybody for: the agent that the
// metadata names.
func caller(agent string) authn.Principal {
	return authn.Principal{
		Peer: authn.Peer{
			Kind: authn.Agent, Tenant: "tenant-1", Agent: agent,
			Certificate: authn.Certificate{ID: "spiffe://stoker.test/tenant/tenant-1/agent/" + agent, Serial: "5e", NotAfter: certificateEnd},
		},
		TenantID: "t1", AgentID: agent, UserID: "u1", Login: "ann",
	}
}

// authenticated is a call with its principal and request id.
type authenticated struct {
	grpc.ServerStream
	ctx context.Context
}

func (s authenticated) Context() context.Context { return s.ctx }

func authenticate(ctx context.Context) context.Context {
	agents := metadata.ValueFromIncomingContext(ctx, "agent")
	ctx = apierr.WithRequestID(ctx, "request-1")
	if len(agents) == 0 {
		return ctx
	}
	return authn.WithPrincipal(ctx, caller(agents[0]))
}

// broker is a real server on loopback.
type broker struct {
	*world
	streams *stream.Registry
	server  *grpc.Server
	address string
}

func serve(t *testing.T, options ...grpc.ServerOption) *broker {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	w := newWorld()
	streams, err := stream.New(stream.Config{Directory: w, Checker: w, Leases: w, Log: log, PerAgent: 1000})
	if err != nil {
		t.Fatal(err)
	}
	credentials, err := agentapi.NewCredentialService(agentapi.CredentialConfig{Streams: streams, Directory: w, Leases: w, Checker: w, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	sessions, err := agentapi.NewSessionService(w)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(append(options,
		grpc.WaitForHandlers(true), // they log to the test
		grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			ctx := authenticate(ss.Context())
			return apierr.Error(ctx, next(srv, authenticated{ss, ctx}))
		}),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			ctx = authenticate(ctx)
			answer, err := next(ctx, req)
			return answer, apierr.Error(ctx, err)
		}))...)
	stokerv1.RegisterCredentialServiceServer(server, credentials)
	stokerv1.RegisterSessionServiceServer(server, sessions)
	// The streams are told to end before the server is stopped.
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(running.Wait)
	address := loopback.Serve(t, server)
	t.Cleanup(cancel)
	running.Go(func() {
		if err := streams.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return &broker{w, streams, server, address}
}

func (b *broker) dial(t *testing.T) *grpc.ClientConn {
	t.Helper()
	return loopback.Dial(t, b.address)
}

func as(ctx context.Context, agent string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "agent", agent)
}

type clientStream = grpc.BidiStreamingClient[stokerv1.StreamCredentialsRequest, stokerv1.StreamCredentialsResponse]

// open opens a stream as the agent and subscribes to the grants.
func open(t *testing.T, conn *grpc.ClientConn, agent string, grants ...string) clientStream {
	t.Helper()
	s, err := stokerv1.NewCredentialServiceClient(conn).StreamCredentials(as(t.Context(), agent))
	if err != nil {
		t.Fatal(err)
	}
	say(t, s, &stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_Subscribe{
		Subscribe: &stokerv1.Subscribe{Grants: grants, Client: "test/1"},
	}})
	if m := next(t, s); m.GetWelcome() == nil {
		t.Fatalf("the first message is %v", m)
	}
	return s
}

func say(t *testing.T, s clientStream, m *stokerv1.StreamCredentialsRequest) {
	t.Helper()
	if err := s.Send(m); err != nil {
		t.Fatalf("send: %v", err)
	}
}

func next(t *testing.T, s clientStream) *stokerv1.StreamCredentialsResponse {
	t.Helper()
	m, err := s.Recv()
	if err != nil {
		t.Fatalf("receive: %v", err)
	}
	return m
}

// wantReason checks that a call failed for the reason, and says so.
func wantReason(t *testing.T, err error, want reason.Reason) *status.Status {
	t.Helper()
	st := status.Convert(err)
	if got := apierr.Reason(st); got != want || st.Code() != apierr.Code(want) {
		t.Fatalf("the call ended with %q (%s: %s), want %s", got, st.Code(), st.Message(), want)
	}
	return st
}

func wantCode(t *testing.T, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Fatalf("the call ended with %v, want %s", err, want)
	}
}

// gone waits until the broker has no stream any more.
func (b *broker) gone(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := b.streams.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.subs) > 0 {
		t.Errorf("%d subscriptions outlive their streams", len(b.subs))
	}
}

func change(kind storage.Kind, id string) []storage.Change {
	return []storage.Change{{Sequence: 1, Kind: kind, ID: id}}
}

func fmtGrants(list []*stokerv1.Credential) string {
	var names []string
	for _, c := range list {
		names = append(names, c.GetGrant())
	}
	return fmt.Sprint(names)
}
