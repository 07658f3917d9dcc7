package fleet

import (
	"sync/atomic"
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
	agent    *agent
	identity Identity
	id       int64
	deaf     bool
	began    time.Time
	// conn is nil until there is one, which is closed at once if it is
	// unwanted by then; broker is where it leads. gone: it has ended. All are
	// guarded by agent.mu.
	conn           *light.Conn
	broker         *broker
	unwanted, gone bool

	// welcomed is when the stream began to count as open, in nanoseconds. dead:
	// nothing counts any more.
	welcomed atomic.Int64
	dead     atomic.Bool
	// useful: more than a welcome has come. leaving: the broker has said when to
	// come back. advice is how long to wait at least.
	useful, leaving atomic.Bool
	advice          atomic.Int64
	// why is what the agent was told at the end.
	why string
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
	if l.dead.Load() {
		return
	}
	switch m := m.GetMessage().(type) {
	case *stokerv1.StreamCredentialsResponse_Welcome:
		l.welcome(now)
		f.counts.welcomes.Add(1)
		f.sampled.keep(&f.sampled.welcome, b)
		f.hit(Welcomed, l.agent.index, l.began, now)
	case *stokerv1.StreamCredentialsResponse_Credential:
		l.useful.Store(true)
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
		l.advice.Store(int64(m.Reconnect.GetDelay().AsDuration()))
		l.leaving.Store(true)
		f.counts.reconnects.Add(1)
	case *stokerv1.StreamCredentialsResponse_Heartbeat:
		l.useful.Store(true)
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
	if j := a.fleet.journal; j != nil {
		j.Received(a.index, Receipt{
			Identity: l.identity, Stream: l.id, Asked: l.began, At: now, ID: fresh.ID, Grant: fresh.Grant,
			AccessKeyID: m.GetAccessKeyId(), Prefix: m.GetTarget().GetPrefix(), Issued: fresh.Issued, Expires: fresh.Expires,
		})
	}
	a.mu.Lock()
	before := a.held
	a.held = fresh
	conn := l.conn
	a.mu.Unlock()
	if before.ID != "" {
		a.fleet.counts.renewed(l.identity.Group, before.left(now))
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
	l.why = why
	if !l.leaving.Load() {
		l.advice.Store(int64(after))
	}
	f.hit(Ended, l.agent.index, l.began, now)
	l.agent.mu.Lock()
	conn := l.conn
	l.agent.mu.Unlock()
	conn.Close()
}

// Closed implements light.Handler.
func (l *link) Closed(error) { l.over(l.why, l.why == "") }

// welcome counts the stream as open, unless it is over.
func (l *link) welcome(now time.Time) {
	l.agent.mu.Lock()
	defer l.agent.mu.Unlock()
	if !l.dead.Load() && l.welcomed.CompareAndSwap(0, now.UnixNano()) {
		l.agent.fleet.counts.connected.Add(1)
	}
}

// over ends the stream once, for whatever reason the agent was told, or for
// none where it left.
func (l *link) over(why string, left bool) {
	f := l.agent.fleet
	l.agent.mu.Lock()
	first := l.dead.CompareAndSwap(false, true)
	l.agent.mu.Unlock()
	if !first {
		return
	}
	s := Streamed{Identity: l.identity, ID: l.id, Asked: l.began, Ended: time.Now(), Reason: why, Left: left || l.deaf}
	if at := l.welcomed.Load(); at != 0 {
		f.counts.connected.Add(-1)
		s.Welcomed = time.Unix(0, at)
	}
	l.agent.lost(l)
	if f.journal != nil {
		f.journal.Streamed(l.agent.index, s)
	}
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
