package agentapi_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/stokerd/stoker/internal/polling"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/agentapi"
	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/lease"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
	"github.com/stokerd/stoker/server/internal/stream"
)

func wantMessage(t *testing.T, got, want *stokerv1.StreamCredentialsResponse) {
	t.Helper()
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Fatalf("the message differs (-want +got):\n%s", diff)
	}
}

// Everything that is sent arrives whole.
func TestMessages(t *testing.T) {
	b := serve(t)
	b.grant("a", "b")
	s, err := stokerv1.NewCredentialServiceClient(b.dial(t)).StreamCredentials(as(t.Context(), "agent-1"))
	if err != nil {
		t.Fatal(err)
	}
	held := uuid.NewString()
	say(t, s, &stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_Subscribe{Subscribe: &stokerv1.Subscribe{
		Grants: []string{"a"}, Client: "test/1",
		Held: []*stokerv1.HeldCredential{{Id: held, Grant: "a", ExpireTime: timestamppb.New(sessionEnd)}},
	}}})
	m := next(t, s)
	welcome := m.GetWelcome()
	if since := time.Since(welcome.GetServerTime().AsTime()); since < 0 || since > time.Minute || uuid.Validate(welcome.GetStreamId()) != nil {
		t.Errorf("welcome %v", welcome)
	}
	wantMessage(t, m, &stokerv1.StreamCredentialsResponse{Message: &stokerv1.StreamCredentialsResponse_Welcome{Welcome: &stokerv1.Welcome{
		Identity: &stokerv1.Identity{
			SpiffeId: "spiffe://stoker.test/tenant/tenant-1/agent/agent-1", CertificateSerial: "5e",
			CertificateExpireTime: timestamppb.New(certificateEnd), Tenant: "tenant-1", Agent: "agent-1", Login: "ann",
		},
		ServerTime: welcome.GetServerTime(), StreamId: welcome.GetStreamId(), HeartbeatInterval: durationpb.New(30 * time.Second),
	}}})

	c := b.issue("a", 1000)
	wantMessage(t, next(t, s), &stokerv1.StreamCredentialsResponse{Message: &stokerv1.StreamCredentialsResponse_Credential{Credential: &stokerv1.Credential{
		Id: c.ID, Grant: "a", AccessKeyId: "ASIAEXAMPLE", SecretAccessKey: "secret-key", SessionToken: c.SessionToken.Reveal(),
		IssueTime: timestamppb.New(c.IssuedAt), ExpireTime: timestamppb.New(c.Expires),
		Target: &stokerv1.Target{
			Bucket: "backups", Prefix: "tenant-1/a/", Region: "eu-west-1",
			Endpoint: "https://s3.example", KmsKeyArn: "arn:aws:kms:eu-west-1:111122223333:key/k",
		},
		Access: stokerv1.Access_ACCESS_BACKUP,
	}}})
	for sub := range b.subs {
		if sub.held == nil || sub.held.ID != held || !sub.held.Expires.Equal(sessionEnd) {
			t.Errorf("the lease was told that %+v is held", sub.held)
		}
	}

	retry, good := time.Now().Add(time.Minute), time.Now().Add(time.Hour)
	b.deliver("a", lease.Event{Problem: &lease.Problem{
		GrantID: "a", Grant: "a", Err: reason.New(reason.STSThrottled, "slow").After(time.Minute), RetryAt: retry, GoodUntil: good,
	}})
	p := next(t, s).GetProblem()
	if p.GetGrant() != "a" || !p.GetRetryTime().AsTime().Equal(retry) || !p.GetGoodUntil().AsTime().Equal(good) {
		t.Errorf("problem %v", p)
	}
	wantReason(t, status.FromProto(p.GetStatus()).Err(), reason.STSThrottled)

	b.deliver("a", lease.Event{Revoked: &lease.Revoked{GrantID: "a", Grant: "a", CredentialID: c.ID, Err: reason.New(reason.CredentialRevoked, "stop")}})
	r := next(t, s).GetRevocation()
	if r.GetGrant() != "a" || r.GetCredentialId() != c.ID {
		t.Errorf("revocation %v", r)
	}
	wantReason(t, status.FromProto(r.GetStatus()).Err(), reason.CredentialRevoked)

	// A problem of the whole stream names no grant and has no times.
	c = b.issue("a", 10)
	next(t, s)
	say(t, s, &stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_Acknowledge{Acknowledge: &stokerv1.Acknowledge{CredentialId: c.ID}}})
	say(t, s, &stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_ReportRefused{ReportRefused: &stokerv1.ReportRefused{CredentialId: c.ID}}})
	p = next(t, s).GetProblem()
	wantReason(t, status.FromProto(p.GetStatus()).Err(), reason.ReportTooFrequent)
	if wait := time.Until(p.GetRetryTime().AsTime()); wait < 15*time.Second || wait > 20*time.Second || !p.GetGoodUntil().AsTime().Equal(c.Expires) {
		t.Errorf("problem %v", p)
	}
	for sub := range b.subs {
		if sub.acked != c.ID {
			t.Errorf("acknowledged: %q", sub.acked)
		}
	}
	say(t, s, &stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_Unsubscribe{Unsubscribe: &stokerv1.Unsubscribe{Grants: []string{"a"}}}})
	say(t, s, &stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_Subscribe{Subscribe: &stokerv1.Subscribe{Grants: []string{"none"}}}})
	p = next(t, s).GetProblem()
	if p.GetGrant() != "none" || p.GetRetryTime() != nil || p.GetGoodUntil() != nil {
		t.Errorf("problem %v", p)
	}
	if n := b.deliver("a", lease.Event{}); n != 0 {
		t.Error("still subscribed to a")
	}
}

// Whatever the agent is doing, the reason reaches it, and nothing of the stream
// is left.
func TestBrokerEndsStream(t *testing.T) {
	end := func(b *broker) {
		b.refuse("agent-1", reason.AgentDisabled)
		b.streams.Changed(change(storage.KindAgent, "agent-1"))
	}
	ended := func(t *testing.T, s clientStream, skip int) {
		t.Helper()
		for range skip {
			if _, err := s.Recv(); err != nil {
				wantReason(t, err, reason.AgentDisabled)
				return
			}
		}
		_, err := s.Recv()
		st := wantReason(t, err, reason.AgentDisabled)
		for _, d := range st.Details() {
			switch d := d.(type) {
			case *errdetails.ErrorInfo:
				if d.GetMetadata()["id"] != "agent-1" {
					t.Errorf("metadata %v", d.GetMetadata())
				}
			case *errdetails.RequestInfo:
				if d.GetRequestId() != "request-1" {
					t.Errorf("request id %q", d.GetRequestId())
				}
			}
		}
	}
	t.Run("idle", func(t *testing.T) {
		b := serve(t)
		s := open(t, b.dial(t), "agent-1")
		end(b)
		ended(t, s, 0)
		b.gone(t)
	})
	t.Run("half-closed", func(t *testing.T) {
		b := serve(t)
		b.grant("a")
		s := open(t, b.dial(t), "agent-1")
		if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
		b.issue("a", 10) // goes on being sent
		if m := next(t, s); m.GetCredential() == nil {
			t.Fatalf("got %v", m)
		}
		end(b)
		ended(t, s, 0)
		b.gone(t)
	})
	t.Run("not reading", func(t *testing.T) {
		b := serve(t)
		b.grant("a")
		conn := b.dial(t)
		s := open(t, conn, "agent-1")
		other := open(t, conn, "agent-2")
		// Until nothing more fits into what lies between.
		for b.pending(t, "agent-1") == 0 {
			b.issue("a", 200_000)
			next(t, other)
		}
		end(b)
		b.left(t, 1) // although nothing was read
		ended(t, s, 100)
	})
	t.Run("sending all the time", func(t *testing.T) {
		b := serve(t)
		s := open(t, b.dial(t), "agent-1")
		end(b)
		for {
			err := s.Send(&stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_Acknowledge{
				Acknowledge: &stokerv1.Acknowledge{CredentialId: uuid.NewString()},
			}})
			if err != nil {
				break
			}
		}
		ended(t, s, 0)
		b.gone(t)
	})
}

// pending says how many messages wait for the agent's stream.
func (b *broker) pending(t *testing.T, agent string) int {
	t.Helper()
	infos, _, err := b.streams.List(stream.Filter{Agent: agent}, "", 1)
	if err != nil || len(infos) != 1 {
		t.Fatal(infos, err)
	}
	return infos[0].Pending
}

// left waits until so many streams are left.
func (b *broker) left(t *testing.T, n int) {
	t.Helper()
	polling.Until(t.Context(), t, "the end of a stream", func() bool { return b.streams.Count(stream.Filter{}) <= n })
}

func TestBadFirstMessages(t *testing.T) {
	for _, test := range []struct {
		name string
		m    *stokerv1.StreamCredentialsRequest // nil: half-close
		want reason.Reason
	}{
		{"half-close", nil, reason.SubscribeFirst},
		{"empty", &stokerv1.StreamCredentialsRequest{}, reason.InvalidRequest},
		{"an empty acknowledgement", &stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_Acknowledge{}}, reason.SubscribeFirst},
		{"an empty unsubscription", &stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_Unsubscribe{}}, reason.SubscribeFirst},
		{"an empty report", &stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_ReportRefused{}}, reason.SubscribeFirst},
		{"a strange name", &stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_Subscribe{Subscribe: &stokerv1.Subscribe{Grants: []string{"a*"}}}}, reason.InvalidRequest},
		{"a held credential without anything", &stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_Subscribe{Subscribe: &stokerv1.Subscribe{Held: []*stokerv1.HeldCredential{nil}}}}, reason.InvalidRequest},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := serve(t)
			s, err := stokerv1.NewCredentialServiceClient(b.dial(t)).StreamCredentials(as(t.Context(), "agent-1"))
			if err != nil {
				t.Fatal(err)
			}
			if test.m == nil {
				err = s.CloseSend()
			} else {
				err = s.Send(test.m)
			}
			if err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			_, err = s.Recv()
			wantReason(t, err, test.want)
			if waited := time.Since(begun); waited > 10*time.Second {
				t.Errorf("refused after %s, when the first message was due", waited)
			}
			b.gone(t)
		})
	}
}

// A message that only newer brokers know is refused like an empty one.
func TestUnknownMessage(t *testing.T) {
	b := serve(t)
	m := &stokerv1.StreamCredentialsRequest{}
	m.ProtoReflect().SetUnknown([]byte{0xca, 0x3e, 0x00}) // field 1001, empty
	s, err := stokerv1.NewCredentialServiceClient(b.dial(t)).StreamCredentials(as(t.Context(), "agent-1"))
	if err != nil {
		t.Fatal(err)
	}
	say(t, s, m)
	_, err = s.Recv()
	wantReason(t, err, reason.InvalidRequest)
}

func TestTooLargeMessage(t *testing.T) {
	b := serve(t, grpc.MaxRecvMsgSize(64<<10))
	s := open(t, b.dial(t), "agent-1")
	say(t, s, &stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_Subscribe{
		Subscribe: &stokerv1.Subscribe{Client: strings.Repeat("x", 65<<10)},
	}})
	_, err := s.Recv()
	wantCode(t, err, codes.ResourceExhausted)
	b.gone(t)
}

func TestAgentEndsStream(t *testing.T) {
	b := serve(t)
	conn := b.dial(t)
	t.Run("by cancelling", func(t *testing.T) {
		ctx, cancel := context.WithCancel(as(t.Context(), "agent-1"))
		s, err := stokerv1.NewCredentialServiceClient(conn).StreamCredentials(ctx)
		if err != nil {
			t.Fatal(err)
		}
		say(t, s, &stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_Subscribe{Subscribe: &stokerv1.Subscribe{}}})
		next(t, s)
		cancel()
		b.gone(t)
	})
	t.Run("by cancelling after half-close", func(t *testing.T) {
		ctx, cancel := context.WithCancel(as(t.Context(), "agent-1"))
		s, err := stokerv1.NewCredentialServiceClient(conn).StreamCredentials(ctx)
		if err != nil {
			t.Fatal(err)
		}
		say(t, s, &stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_Subscribe{Subscribe: &stokerv1.Subscribe{}}})
		if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
		next(t, s)
		cancel()
		b.gone(t)
	})
	t.Run("by its deadline", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(as(t.Context(), "agent-1"), 50*time.Millisecond)
		defer cancel()
		s, err := stokerv1.NewCredentialServiceClient(conn).StreamCredentials(ctx)
		if err == nil {
			_, err = s.Recv()
		}
		wantCode(t, err, codes.DeadlineExceeded)
		b.gone(t)
	})
	t.Run("by closing the connection", func(t *testing.T) {
		conn := b.dial(t)
		open(t, conn, "agent-1")
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		b.gone(t)
	})
}

func TestServerStops(t *testing.T) {
	b := serve(t)
	s := open(t, b.dial(t), "agent-1")
	b.server.Stop()
	b.gone(t)
	_, err := s.Recv()
	wantCode(t, err, codes.Unavailable)
}

func TestDrain(t *testing.T) {
	b := serve(t)
	conn := b.dial(t)
	idle, closed := open(t, conn, "agent-1"), open(t, conn, "agent-2")
	if err := closed.CloseSend(); err != nil {
		t.Fatal(err)
	}
	b.streams.Drain(time.Minute)
	for _, s := range []clientStream{idle, closed} {
		r := next(t, s).GetReconnect()
		if d := r.GetDelay().AsDuration(); r == nil || d < 0 || d > time.Minute {
			t.Errorf("reconnect %v", r)
		}
		if _, err := s.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("after the farewell the call ended with %v", err)
		}
	}
	b.gone(t)
	s, err := stokerv1.NewCredentialServiceClient(conn).StreamCredentials(as(t.Context(), "agent-1"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Recv()
	wantReason(t, err, reason.Draining)
}

// An idle stream has the goroutine of its handler and no other.
func TestOneGoroutineAStream(t *testing.T) {
	const n = 50
	b := serve(t)
	b.grant("a")
	conn := b.dial(t)
	var streams []clientStream
	for i := range n {
		s := open(t, conn, fmt.Sprint("agent-", i))
		if i%2 == 0 {
			if err := s.CloseSend(); err != nil {
				t.Fatal(err)
			}
		}
		streams = append(streams, s)
	}
	b.issue("a", 1000)
	for _, s := range streams {
		next(t, s)
	}
	// The goroutines that sent are about to end.
	var handlers, others int
	for begun := time.Now(); time.Since(begun) < 10*time.Second; runtime.Gosched() {
		if handlers, others = goroutines(); handlers == n && others == 2 {
			return
		}
	}
	t.Errorf("%d goroutines of handlers and %d others; want %d, and the registry's two", handlers, others, n)
}

// goroutines counts those of handlers, and the others of the broker's that
// concern streams.
func goroutines() (handlers, others int) {
	stacks := make([]byte, 8<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for stack := range strings.SplitSeq(string(stacks), "\n\n") {
		switch {
		case strings.Contains(stack, "agentapi.(*CredentialService).StreamCredentials("):
			handlers++
		case strings.Contains(stack, "internal/stream.(*"):
			others++
		}
	}
	return handlers, others
}

func TestWithoutPrincipal(t *testing.T) {
	b := serve(t)
	conn := b.dial(t)
	s, err := stokerv1.NewCredentialServiceClient(conn).StreamCredentials(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Recv()
	wantReason(t, err, reason.Internal)
	for _, call := range []func() error{
		func() error {
			_, err := stokerv1.NewCredentialServiceClient(conn).GetCredentials(t.Context(), &stokerv1.GetCredentialsRequest{})
			return err
		},
		func() error {
			_, err := stokerv1.NewCredentialServiceClient(conn).ListGrants(t.Context(), &stokerv1.ListGrantsRequest{})
			return err
		},
		func() error {
			_, err := stokerv1.NewSessionServiceClient(conn).CreateSession(t.Context(), &stokerv1.CreateSessionRequest{})
			return err
		},
		func() error {
			_, err := stokerv1.NewSessionServiceClient(conn).GetSession(t.Context(), &stokerv1.GetSessionRequest{})
			return err
		},
		func() error {
			_, err := stokerv1.NewSessionServiceClient(conn).DeleteSession(t.Context(), &stokerv1.DeleteSessionRequest{})
			return err
		},
	} {
		wantReason(t, call(), reason.Internal)
	}
}

// noTransport is a call on something that is not grpc's own transport.
type noTransport struct {
	grpc.ServerStream
	ctx context.Context
}

func (n noTransport) Context() context.Context { return n.ctx }

type otherTransport struct{}

func (otherTransport) Method() string               { return "" }
func (otherTransport) SetHeader(metadata.MD) error  { return nil }
func (otherTransport) SendHeader(metadata.MD) error { return nil }
func (otherTransport) SetTrailer(metadata.MD) error { return nil }

// A call that the broker could not end is not accepted.
func TestUnknownTransport(t *testing.T) {
	b := serve(t)
	service, err := agentapi.NewCredentialService(agentapi.CredentialConfig{
		Streams: b.streams, Directory: b.world, Leases: b.world, Checker: b.world, Log: slogOf(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx := authn.WithPrincipal(t.Context(), caller("agent-1"))
	for _, ctx := range []context.Context{ctx, grpc.NewContextWithServerTransportStream(ctx, otherTransport{})} {
		call := &grpc.GenericServerStream[stokerv1.StreamCredentialsRequest, stokerv1.StreamCredentialsResponse]{
			ServerStream: noTransport{ctx: ctx},
		}
		if err := service.StreamCredentials(call); reason.Of(err) != reason.Internal {
			t.Errorf("the call ended with %v", err)
		}
	}
	b.gone(t)
}

// Agents come, go, read and do not read while credentials are pushed and
// agents are disabled: every stream ends with its reason or by its agent, and
// nothing is left.
func TestManyAtOnce(t *testing.T) {
	const agents, rounds = 16, 6
	b := serve(t)
	b.grant("a", "b")
	ctx, stop := context.WithCancel(t.Context())
	var pushing sync.WaitGroup
	pushing.Go(func() {
		for ctx.Err() == nil {
			b.issue("a", 2000)
			b.issue("b", 20)
			b.streams.Changed(append(change(storage.KindGrant, "a"), change(storage.KindTenant, "t1")...))
		}
	})
	var all sync.WaitGroup
	for i := range agents {
		conn := b.dial(t)
		name := fmt.Sprint("agent-", i)
		all.Go(func() {
			for round := range rounds {
				ctx, cancel := context.WithCancel(as(t.Context(), name))
				s, err := stokerv1.NewCredentialServiceClient(conn).StreamCredentials(ctx)
				if err != nil {
					t.Error(err)
				}
				err = s.Send(&stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_Subscribe{Subscribe: &stokerv1.Subscribe{}}})
				if err != nil {
					t.Error(err)
				}
				last := map[string]time.Time{}
				for range 20 * (i % 3) {
					m, err := s.Recv()
					if err != nil {
						t.Error(err)
						break
					}
					if c := m.GetCredential(); c != nil {
						if at := c.GetIssueTime().AsTime(); !at.After(last[c.GetGrant()]) {
							t.Errorf("%s: issue times do not grow", c.GetGrant())
						} else {
							last[c.GetGrant()] = at
						}
					}
				}
				if round == rounds-1 {
					b.refuse(name, reason.AgentDisabled)
					b.streams.Changed(change(storage.KindAgent, name))
					for err == nil {
						_, err = s.Recv()
					}
					if status.Code(err) != codes.PermissionDenied {
						t.Errorf("ended with %v", err)
					}
				}
				cancel()
			}
		})
	}
	all.Wait()
	stop()
	pushing.Wait()
	b.gone(t)
}
