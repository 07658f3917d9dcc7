package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

const (
	// welcomeTimeout is how long a broker may take to open a stream.
	welcomeTimeout = 20 * time.Second
	// quietBeats is how many heartbeats may be missed.
	quietBeats = 3
	// What a heartbeat interval may be; outside, the bound counts.
	shortestBeat = time.Second
	longestBeat  = 10 * time.Minute
	// longestDrain bounds how far away a reconnection may be put.
	longestDrain = 10 * time.Minute
)

// conversation is one stream, from its first message to its end. It belongs to
// the source's goroutine.
type conversation struct {
	source *Source
	link   *link
	broker string
	stream wire

	welcomed, useful bool
	quiet            time.Duration // how long a silence may last
	back             time.Time
	issued           map[string]time.Time // by grant, on this stream

	moves chan move     // where the stream is to go on
	next  *move         // taken from moves
	over  chan struct{} // closed when the stream has ended
}

type received struct {
	message *stokerv1.StreamCredentialsResponse
	err     error
}

// converse holds one stream. When it returns, nothing of the stream is left.
func (s *Source) converse(ctx context.Context, l *link, broker, token string) outcome {
	c := &conversation{
		source: s, link: l, broker: broker, quiet: welcomeTimeout, issued: make(map[string]time.Time),
		moves: make(chan move), over: make(chan struct{}),
	}
	began := time.Now()
	err := c.hold(ctx, token)
	s.mu.Lock()
	s.talking = nil
	s.mu.Unlock()
	close(c.over)
	end := outcome{
		broker: broker, err: err, welcomed: c.welcomed, useful: c.useful,
		lasted: time.Since(began), back: c.back, next: c.next,
	}
	if !c.back.IsZero() {
		// The broker said that it would go, so that it went is no error.
		end.err = nil
	}
	return end
}

// hold opens the stream and handles what comes until it ends.
func (c *conversation) hold(ctx context.Context, token string) *Error {
	ctx, cancel := context.WithCancelCause(ctx)
	var receiver sync.WaitGroup
	defer receiver.Wait()
	defer cancel(nil)
	// A timer of its own, because a send may block when the broker is stuck.
	silence := time.AfterFunc(c.quiet, func() { cancel(errSilence) })
	defer silence.Stop()

	stream, err := c.source.config.open(ctx, c.link, token)
	if err != nil {
		return c.link.explain(ctx, err)
	}
	c.stream = stream
	if err := c.send(c.source.subscription()); err != nil {
		return c.link.explain(ctx, err)
	}
	inbox := make(chan received)
	receiver.Go(func() { receive(ctx, stream, inbox) })

	leave := time.NewTimer(0)
	leave.Stop()
	for {
		moves := c.moves
		if !c.back.IsZero() {
			moves = nil // not to a broker that shuts down
		}
		select {
		case <-ctx.Done():
			return c.link.explain(ctx, ctx.Err())
		case <-leave.C:
			return nil
		case m := <-moves:
			c.next = &m
			return nil
		case <-c.source.reports:
			if err := c.report(); err != nil {
				return c.link.explain(ctx, err)
			}
		case in := <-inbox:
			if errors.Is(in.err, io.EOF) {
				return &Error{Transient: true, Message: "the broker ended the stream"}
			}
			if in.err != nil {
				return c.link.explain(ctx, in.err)
			}
			if err := c.handle(in.message); err != nil {
				return err
			}
			silence.Reset(c.quiet)
			if !c.back.IsZero() {
				leave.Reset(time.Until(c.back))
			}
		}
	}
}

// offer gives the stream a connection to go on with, and says whether it took it.
// The stream has ended then: nobody takes it for one that is to be moved.
func (c *conversation) offer(ctx context.Context, m move) bool {
	select {
	case c.moves <- m:
		<-c.over
		return true
	case <-c.over:
	case <-ctx.Done():
	}
	return false
}

// talks gives the conversation that goes on, or nil.
func (s *Source) talks() *conversation {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.talking
}

// receive passes messages on, one at a time, until the stream ends.
func receive(ctx context.Context, stream wire, inbox chan<- received) {
	for {
		message, err := stream.Recv()
		select {
		case inbox <- received{message, err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// send sends one message. io.EOF is no error here: the stream has ended, and
// receiving tells why.
func (c *conversation) send(message *stokerv1.StreamCredentialsRequest) error {
	if err := c.stream.Send(message); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// subscription is the first message: what is wanted and what is still held.
func (s *Source) subscription() *stokerv1.StreamCredentialsRequest {
	s.mu.RLock()
	defer s.mu.RUnlock()
	subscribe := &stokerv1.Subscribe{Grants: s.config.Grants, Client: s.config.Client}
	now := s.clock.now()
	for _, name := range s.names() {
		entry := s.supplies[name]
		if entry == nil || entry.credential == nil || !entry.credential.Expires.After(now) {
			continue
		}
		subscribe.Held = append(subscribe.Held, &stokerv1.HeldCredential{
			Id:         entry.credential.ID,
			Grant:      name,
			ExpireTime: timestamppb.New(entry.credential.Expires),
		})
	}
	return &stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_Subscribe{Subscribe: subscribe}}
}

// report tells the broker which credentials S3 refused.
func (c *conversation) report() error {
	if !c.welcomed {
		return nil // the welcome reports
	}
	s := c.source
	s.mu.Lock()
	var reports []*stokerv1.ReportRefused
	for _, name := range s.names() {
		if entry := s.supplies[name]; entry != nil && entry.report != "" && entry.credential != nil {
			reports = append(reports, &stokerv1.ReportRefused{CredentialId: entry.credential.ID, ErrorCode: entry.report})
			entry.report = ""
		}
	}
	s.mu.Unlock()
	for _, r := range reports {
		if err := c.send(&stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_ReportRefused{ReportRefused: r}}); err != nil {
			return err
		}
	}
	return nil
}

// handle acts on one message. An error ends the stream.
func (c *conversation) handle(message *stokerv1.StreamCredentialsResponse) *Error {
	if welcome := message.GetWelcome(); welcome != nil {
		return c.welcome(welcome)
	}
	if !c.welcomed {
		return &Error{Transient: true, Message: "the broker's first message is no welcome"}
	}
	switch m := message.GetMessage().(type) {
	case *stokerv1.StreamCredentialsResponse_Credential:
		return c.credential(m.Credential)
	case *stokerv1.StreamCredentialsResponse_Problem:
		c.problem(m.Problem)
	case *stokerv1.StreamCredentialsResponse_Revocation:
		c.revocation(m.Revocation)
	case *stokerv1.StreamCredentialsResponse_Reconnect:
		c.reconnect(m.Reconnect)
	case *stokerv1.StreamCredentialsResponse_Heartbeat:
		c.useful = true
		c.tick(m.Heartbeat.GetServerTime())
	}
	// Anything else is of a newer broker, and to be ignored.
	return nil
}

// tick sets the clock by the broker's.
func (c *conversation) tick(server *timestamppb.Timestamp) {
	if server.CheckValid() != nil {
		return
	}
	c.source.mu.Lock()
	defer c.source.mu.Unlock()
	c.source.clock.set(server.AsTime())
}

func (c *conversation) welcome(m *stokerv1.Welcome) *Error {
	if c.welcomed {
		return &Error{Transient: true, Message: "the broker welcomed twice"}
	}
	c.tick(m.GetServerTime())
	c.welcomed = true
	c.quiet = quietBeats * min(max(m.GetHeartbeatInterval().AsDuration(), shortestBeat), longestBeat)
	s := c.source
	s.apply(func() *Event {
		s.standing = Event{
			Kind: EventConnected, Time: time.Now(), Broker: c.broker,
			Identity: fromIdentity(m.GetIdentity()), StreamID: printable(m.GetStreamId()),
		}
		s.problem = nil
		s.talking = c
		event := s.standing
		return &event
	})
	wake(s.welcomed)
	s.mu.RLock()
	skew := s.clock.skew()
	s.mu.RUnlock()
	if skew.Abs() > skewBound {
		s.log.Warn("this machine's clock differs from the broker's: correct it, or S3 may refuse requests", "ahead", skew)
	}
	if err := c.report(); err != nil {
		return &Error{Transient: true, Message: printable(err.Error()), cause: err}
	}
	return nil
}

// credential takes a new credential into use and acknowledges it. A malformed
// one, or an old one, leaves the last good one in its place.
func (c *conversation) credential(m *stokerv1.Credential) *Error {
	fresh, err := fromCredential(m)
	if err == nil && !c.wanted(fresh.Grant) {
		err = errors.New("nobody asked for its grant")
	}
	if err == nil && !fresh.Issued.After(c.issued[fresh.Grant]) {
		err = errors.New("it is older than the one before")
	}
	if err != nil {
		c.unusable(printable(m.GetGrant()), fmt.Errorf("the broker sent an unusable credential: %w", err))
		return nil
	}
	c.useful = true
	c.issued[fresh.Grant] = fresh.Issued
	s := c.source
	s.apply(func() *Event {
		s.supplies[fresh.Grant] = &supply{credential: &fresh}
		shown := fresh
		shown.Expires = s.clock.local(shown.Expires)
		return &Event{Kind: EventCredential, Time: time.Now(), Grant: fresh.Grant, Credential: shown}
	})
	if err := c.send(&stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_Acknowledge{
		Acknowledge: &stokerv1.Acknowledge{CredentialId: fresh.ID},
	}}); err != nil {
		return &Error{Transient: true, Message: printable(err.Error()), cause: err}
	}
	return nil
}

func (c *conversation) wanted(grant string) bool {
	names := c.source.config.Grants
	return len(names) == 0 || slices.Contains(names, grant)
}

// unusable tells of something that the broker should not have sent. It changes
// nothing else.
func (c *conversation) unusable(grant string, err error) {
	s := c.source
	s.apply(func() *Event {
		event := &Event{
			Kind: EventProblem, Time: time.Now(), Grant: grant,
			Err: &Error{Transient: true, Message: err.Error(), Grant: grant},
		}
		if last, err := s.lookup(grant); err == nil {
			event.GoodUntil = last.Expires
		}
		return event
	})
}

func (c *conversation) problem(m *stokerv1.Problem) {
	s := c.source
	grant := printable(m.GetGrant())
	if grant != "" && !c.wanted(grant) {
		return
	}
	why := fromDetail(m.GetStatus(), grant)
	s.apply(func() *Event {
		if grant != "" && why.Reason.cutsOff() {
			// It went while we were away.
			if event := s.revoke(grant, "", why); event != nil {
				return event
			}
		}
		event := &Event{
			Kind: EventProblem, Time: time.Now(), Grant: grant, Err: why,
			RetryTime: s.localTime(m.GetRetryTime()), GoodUntil: s.localTime(m.GetGoodUntil()),
		}
		kept := *event
		if grant == "" {
			s.problem = &kept
		} else {
			s.entry(grant).problem = &kept
		}
		return event
	})
}

func (c *conversation) revocation(m *stokerv1.Revocation) {
	s := c.source
	grant, id := printable(m.GetGrant()), printable(m.GetCredentialId())
	if grant == "" || !c.wanted(grant) {
		return
	}
	s.apply(func() *Event {
		entry := s.entry(grant)
		if id != "" && (entry.credential == nil || entry.credential.ID != id) {
			return nil // it was replaced already
		}
		event := &Event{
			Kind: EventRevocation, Time: time.Now(), Grant: grant, CredentialID: id,
			Err: fromDetail(m.GetStatus(), grant),
		}
		kept := *event
		s.supplies[grant] = &supply{revocation: &kept}
		return event
	})
}

func (c *conversation) reconnect(m *stokerv1.Reconnect) {
	delay := min(max(m.GetDelay().AsDuration(), 0), longestDrain)
	c.back = time.Now().Add(delay)
	c.source.apply(func() *Event {
		c.source.talking = nil
		return &Event{Kind: EventReconnect, Time: time.Now(), Broker: c.broker, RetryTime: c.back}
	})
}

// entry gives the grant's supply, making it if need be. It needs mu.
func (s *Source) entry(grant string) *supply {
	if s.supplies[grant] == nil {
		s.supplies[grant] = &supply{}
	}
	return s.supplies[grant]
}

// localTime translates an optional time of the broker's. It needs mu.
func (s *Source) localTime(t *timestamppb.Timestamp) time.Time {
	if t == nil || t.CheckValid() != nil {
		return time.Time{}
	}
	return s.clock.local(t.AsTime())
}

// fromDetail turns the status inside a message into an Error.
func fromDetail(p *statuspb.Status, grant string) *Error {
	e := fromStatus(status.FromProto(p), nil)
	e.Grant = grant
	return e
}
