package clienttest

import (
	"crypto/rand"
	"errors"
	"io"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/stokerd/stoker/client"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

type streamServer = stokerv1.CredentialService_StreamCredentialsServer

// stream is one open StreamCredentials call. The broker's mu guards it.
type stream struct {
	session *session
	all     bool
	grants  []string // where not all
	outbox  []*stokerv1.StreamCredentialsResponse
	over    bool
	final   *client.Error
	wake    chan struct{}
}

func (s *stream) has(grant string) bool { return s.all || slices.Contains(s.grants, grant) }

// file queues a message. It needs mu.
func (s *stream) file(message *stokerv1.StreamCredentialsResponse) {
	s.outbox = append(s.outbox, message)
	s.rouse()
}

// end ends the stream once its outbox is empty. It needs mu.
func (s *stream) end(problem *client.Error) {
	if !s.over {
		s.over, s.final = true, problem
		s.rouse()
	}
}

func (s *stream) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// StreamCredentials implements the call.
func (s credentialService) StreamCredentials(call streamServer) error {
	b := s.broker
	first, err := call.Recv()
	if err != nil {
		return err
	}
	open, failed := b.open(call, first.GetSubscribe())
	if failed != nil {
		return statusOf(*failed).Err()
	}
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.streams, open)
		b.note()
	}()
	received := make(chan error, 1)
	go func() { received <- b.listen(call, open) }()
	return b.serve(call, open, received)
}

// open admits a stream and files what it is to get first.
func (b *Broker) open(call streamServer, subscribe *stokerv1.Subscribe) (*stream, *client.Error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, failed := b.authenticate(call.Context())
	switch {
	case failed != nil:
		return nil, failed
	case b.refuseStreams != nil:
		return nil, b.refuseStreams
	case subscribe == nil:
		return nil, refusal(client.ReasonSubscribeFirst, "subscribe first")
	}
	s := &stream{session: c.session, all: len(subscribe.GetGrants()) == 0, grants: subscribe.GetGrants(), wake: make(chan struct{}, 1)}
	b.streams[s] = struct{}{}
	heard := Subscription{Grants: s.grants, Client: subscribe.GetClient()}
	held := make(map[string]string)
	for _, h := range subscribe.GetHeld() {
		heard.Held = append(heard.Held, Held{ID: h.GetId(), Grant: h.GetGrant(), Expires: h.GetExpireTime().AsTime()})
		held[h.GetGrant()] = h.GetId()
	}
	b.record.subscriptions = append(b.record.subscriptions, heard)
	b.note()
	s.file(&stokerv1.StreamCredentialsResponse{Message: &stokerv1.StreamCredentialsResponse_Welcome{Welcome: &stokerv1.Welcome{
		Identity: c.identity, ServerTime: timestamppb.New(b.now()),
		HeartbeatInterval: durationpb.New(b.settings.heartbeat), StreamId: rand.Text(),
	}}})
	names := s.grants
	if s.all {
		names = slices.Sorted(maps.Keys(b.grants))
	}
	for _, name := range names {
		problem := b.unavailable(name)
		switch {
		case problem != nil && held[name] != "":
			s.file(revocationMessage(&stokerv1.Revocation{Grant: name, Status: detail(*problem)}))
		case problem != nil:
			s.file(problemMessage(&stokerv1.Problem{Grant: name, Status: detail(*problem)}))
		default:
			if c := b.present(name); held[name] != c.ID {
				s.file(credentialMessage(c))
			}
		}
	}
	return s, nil
}

// serve sends what is filed, and heartbeats, until the stream is over.
func (b *Broker) serve(call streamServer, s *stream, received <-chan error) error {
	beat := time.NewTicker(b.settings.heartbeat)
	defer beat.Stop()
	for {
		b.mu.Lock()
		messages, over, final := s.outbox, s.over, s.final
		s.outbox = nil
		b.mu.Unlock()
		for _, m := range messages {
			if err := call.Send(m); err != nil {
				return err
			}
		}
		if over && final != nil {
			return statusOf(*final).Err()
		}
		if over {
			return nil
		}
		select {
		case <-s.wake:
		case <-beat.C:
			b.mu.Lock()
			muted, now := b.muted, b.now()
			b.mu.Unlock()
			if muted {
				continue
			}
			if err := call.Send(heartbeat(now)); err != nil {
				return err
			}
		case err := <-received:
			if err != nil {
				return err
			}
			received = nil // half-closed: it goes on listening to us
		case <-call.Context().Done():
			return call.Context().Err()
		}
	}
}

// listen records what the agent says.
func (b *Broker) listen(call streamServer, s *stream) error {
	for {
		in, err := call.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		b.mu.Lock()
		b.hear(s, in)
		b.note()
		b.mu.Unlock()
	}
}

// hear acts on one message. It needs mu.
func (b *Broker) hear(s *stream, in *stokerv1.StreamCredentialsRequest) {
	switch m := in.GetMessage().(type) {
	case *stokerv1.StreamCredentialsRequest_Acknowledge:
		b.record.acknowledged = append(b.record.acknowledged, m.Acknowledge.GetCredentialId())
	case *stokerv1.StreamCredentialsRequest_ReportRefused:
		b.record.reports = append(b.record.reports, Report{m.ReportRefused.GetCredentialId(), m.ReportRefused.GetErrorCode()})
		for name, c := range b.grants {
			if c != nil && c.ID == m.ReportRefused.GetCredentialId() {
				b.send(name, credentialMessage(b.issue(name, b.settings.lifetime)))
			}
		}
	case *stokerv1.StreamCredentialsRequest_Subscribe:
		for _, name := range m.Subscribe.GetGrants() {
			if !s.has(name) {
				s.grants = append(s.grants, name)
				s.file(credentialMessage(b.present(name)))
			}
		}
	case *stokerv1.StreamCredentialsRequest_Unsubscribe:
		s.grants = slices.DeleteFunc(s.grants, func(name string) bool {
			return slices.Contains(m.Unsubscribe.GetGrants(), name)
		})
	}
}

func heartbeat(now time.Time) *stokerv1.StreamCredentialsResponse {
	return &stokerv1.StreamCredentialsResponse{Message: &stokerv1.StreamCredentialsResponse_Heartbeat{
		Heartbeat: &stokerv1.Heartbeat{ServerTime: timestamppb.New(now)},
	}}
}
