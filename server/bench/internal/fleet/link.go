package fleet

import (
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/bench/internal/light"
)

// link is one stream of an agent on a connection of its own. It implements
// light.Handler; what no lock guards is the connection's goroutine's.
type link struct {
	agent *agent
	began time.Time
	// conn is nil until there is one, which is closed at once if it is
	// unwanted by then; broker is where it leads. gone: it has ended. All are
	// guarded by agent.mu.
	conn           *light.Conn
	broker         *broker
	unwanted, gone bool

	// welcomed: the stream counts as open. useful: more than that has come.
	welcomed, useful bool
	// leaving: the broker has said when to come back. advice is how long to
	// wait at least.
	leaving bool
	advice  time.Duration
	// issued is the latest issue time on this stream.
	issued time.Time
}

// Message implements light.Handler.
func (l *link) Message(call uint32, b []byte) {
	f, now := l.agent.fleet, time.Now()
	m := &stokerv1.StreamCredentialsResponse{}
	if err := proto.Unmarshal(b, m); err != nil {
		f.counts.failed(err)
		return
	}
	switch m := m.GetMessage().(type) {
	case *stokerv1.StreamCredentialsResponse_Welcome:
		l.welcomed = true
		f.counts.connected.Add(1)
		f.counts.welcomes.Add(1)
		f.sampled.keep(&f.sampled.welcome, b)
		f.hit(Welcomed, l.agent.index, l.began, now)
	case *stokerv1.StreamCredentialsResponse_Credential:
		l.useful = true
		f.sampled.keep(&f.sampled.credential, b)
		l.take(call, m.Credential, now)
		f.hit(Supplied, l.agent.index, l.began, now)
	case *stokerv1.StreamCredentialsResponse_Problem:
		f.counts.count(&f.counts.problems, reasonOf(m.Problem.GetStatus()))
		f.hit(Warned, l.agent.index, l.began, now)
	case *stokerv1.StreamCredentialsResponse_Revocation:
		f.counts.revocations.Add(1)
		l.agent.mu.Lock()
		l.agent.held = Held{}
		l.agent.mu.Unlock()
	case *stokerv1.StreamCredentialsResponse_Reconnect:
		l.leaving, l.advice = true, m.Reconnect.GetDelay().AsDuration()
		f.counts.reconnects.Add(1)
	case *stokerv1.StreamCredentialsResponse_Heartbeat:
		l.useful = true
		f.counts.heartbeats.Add(1)
	}
}

// take keeps a credential and acknowledges it.
func (l *link) take(call uint32, m *stokerv1.Credential, now time.Time) {
	a := l.agent
	fresh := Held{ID: m.GetId(), Grant: m.GetGrant(), Issued: m.GetIssueTime().AsTime(), Expires: m.GetExpireTime().AsTime()}
	a.fleet.counts.credentials.Add(1)
	if !fresh.Issued.After(l.issued) {
		a.fleet.counts.disorder.Add(1)
	}
	l.issued = fresh.Issued
	a.mu.Lock()
	before := a.held
	a.held = fresh
	conn := l.conn
	a.mu.Unlock()
	if before.ID != "" {
		a.fleet.counts.renewed(a.identity.Group, before.left(now))
	}
	acknowledgement, err := proto.Marshal(&stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_Acknowledge{
		Acknowledge: &stokerv1.Acknowledge{CredentialId: fresh.ID},
	}})
	if err == nil {
		err = conn.Send(call, acknowledgement)
	}
	if err != nil {
		a.fleet.counts.failed(err)
	}
}

// Ended implements light.Handler.
func (l *link) Ended(_ uint32, s light.Status) {
	f, now := l.agent.fleet, time.Now()
	why, after := explain(s)
	f.counts.count(&f.counts.ends, why)
	if !l.leaving {
		l.advice = after
	}
	f.hit(Ended, l.agent.index, l.began, now)
	l.agent.mu.Lock()
	conn := l.conn
	l.agent.mu.Unlock()
	conn.Close()
}

// Closed implements light.Handler.
func (l *link) Closed(error) {
	if l.welcomed {
		l.agent.fleet.counts.connected.Add(-1)
	}
	l.agent.lost(l)
}

// explain gives the reason of a call's end, and how long to wait.
func explain(s light.Status) (why string, after time.Duration) {
	details := &statuspb.Status{}
	if proto.Unmarshal(s.Details, details) != nil || len(s.Details) == 0 {
		if s.Code == 0 {
			return "OK", 0
		}
		return s.Message, 0
	}
	for _, d := range details.GetDetails() {
		wait := &errdetails.RetryInfo{}
		if d.MessageIs(wait) && d.UnmarshalTo(wait) == nil {
			after = wait.GetRetryDelay().AsDuration()
		}
	}
	return reasonOf(details), after
}

// reasonOf is the reason in a status, or its message.
func reasonOf(s *statuspb.Status) string {
	for _, d := range s.GetDetails() {
		info := &errdetails.ErrorInfo{}
		if d.MessageIs(info) && d.UnmarshalTo(info) == nil {
			return info.GetReason()
		}
	}
	return s.GetMessage()
}
