package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/lease"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeDirectory holds grants and revoked certificates.
type fakeDirectory struct {
	mu      sync.RWMutex
	grants  map[string]storage.Grant
	revoked map[string]string // certificate id to serial
}

func (d *fakeDirectory) Grant(id string) (storage.Grant, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	g, ok := d.grants[id]
	return g, ok
}

func (d *fakeDirectory) GrantByName(tenantID, name string) (storage.Grant, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for _, g := range d.grants {
		if g.TenantID == tenantID && g.Name == name {
			return g, true
		}
	}
	return storage.Grant{}, false
}

func (d *fakeDirectory) GrantsFor(tenantID, userID string) []storage.Grant {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var list []storage.Grant
	for _, g := range d.grants {
		if g.TenantID == tenantID && (g.UserID == "" || g.UserID == userID) {
			list = append(list, g)
		}
	}
	return list
}

func (d *fakeDirectory) RevokedCertificate(id string) (storage.Certificate, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	serial, ok := d.revoked[id]
	return storage.Certificate{Serial: serial}, ok
}

func (d *fakeDirectory) put(g storage.Grant) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.grants[g.ID] = g
}

func (d *fakeDirectory) remove(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.grants, id)
}

// fakeChecker refuses those who are in its table, by the id of tenant, user,
// agent, session or certificate.
type fakeChecker struct {
	mu      sync.RWMutex
	refused map[string]*reason.Error
	checks  atomic.Int64
}

func (c *fakeChecker) Check(p authn.Principal) error {
	c.checks.Add(1)
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, id := range []string{p.Certificate.Serial, p.TenantID, p.UserID, p.AgentID, p.SessionID} {
		if err, ok := c.refused[id]; ok {
			return err
		}
	}
	return nil
}

func (c *fakeChecker) refuse(id string, r reason.Reason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused[id] = reason.New(r, "refused")
}

// fakeLeases gives each subscriber the grant's credential in force, if it has
// one, as the lease manager does: under a lock of its own.
type fakeLeases struct {
	mu      sync.Mutex
	current map[string]*lease.Credential // by grant id
	subs    map[*fakeSubscription]struct{}
	made    int
	resume  bool // accept what is held
	// subscribing is called by each Subscribe.
	subscribing func()
}

type fakeSubscription struct {
	leases  *fakeLeases
	holder  lease.Holder
	grantID string
	held    *lease.Held
	to      lease.Subscriber
	closed  bool
	acks    []string
	reports []string
	refusal error
	supply  lease.Supply
}

func (l *fakeLeases) Subscribe(h lease.Holder, grantID string, held *lease.Held, to lease.Subscriber) Subscription {
	if l.subscribing != nil {
		l.subscribing()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &fakeSubscription{leases: l, holder: h, grantID: grantID, held: held, to: to}
	l.subs[s] = struct{}{}
	l.made++
	if l.resume && held != nil {
		s.supply = lease.Supply{CredentialID: held.ID, Expires: held.Expires}
		return s
	}
	if c := l.current[grantID]; c != nil {
		s.supply.CredentialID = c.ID
		to.Deliver(lease.Event{Credential: c})
	}
	return s
}

func (s *fakeSubscription) Acknowledge(id string) {
	s.leases.mu.Lock()
	defer s.leases.mu.Unlock()
	s.acks = append(s.acks, id)
}

func (s *fakeSubscription) Refused(id, code string) error {
	s.leases.mu.Lock()
	defer s.leases.mu.Unlock()
	if s.supply.CredentialID != id {
		return reason.New(reason.CredentialUnknown, "not this one")
	}
	s.reports = append(s.reports, code)
	return s.refusal
}

func (s *fakeSubscription) Supply() lease.Supply {
	s.leases.mu.Lock()
	defer s.leases.mu.Unlock()
	return s.supply
}

func (s *fakeSubscription) Close() {
	s.leases.mu.Lock()
	defer s.leases.mu.Unlock()
	s.closed = true
	delete(s.leases.subs, s)
}

// deliver tells everybody who is subscribed to the grant.
func (l *fakeLeases) deliver(grantID string, event lease.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if event.Credential != nil {
		l.current[grantID] = event.Credential
	}
	for s := range l.subs {
		if s.grantID != grantID {
			continue
		}
		if event.Credential != nil {
			s.supply.CredentialID = event.Credential.ID
		}
		s.to.Deliver(event)
	}
}

// issue delivers a new credential and returns it.
func (l *fakeLeases) issue(grantID string) *lease.Credential {
	c := newCredential(grantID)
	l.deliver(grantID, lease.Event{Credential: c})
	return c
}

func (l *fakeLeases) open(grantID string) []*fakeSubscription {
	l.mu.Lock()
	defer l.mu.Unlock()
	var subs []*fakeSubscription
	for s := range l.subs {
		if s.grantID == grantID {
			subs = append(subs, s)
		}
	}
	return subs
}

var lastIssued atomic.Int64

// newCredential makes one that is newer than all before.
func newCredential(grantID string) *lease.Credential {
	now := time.Now().UnixNano()
	for {
		last := lastIssued.Load()
		if next := max(now, last+1); lastIssued.CompareAndSwap(last, next) {
			now = next
			break
		}
	}
	return &lease.Credential{
		ID: uuid.Must(uuid.NewV7()).String(), GrantID: grantID, Grant: grantID,
		AccessKeyID: "ASIA", SecretAccessKey: secret.New("s"), SessionToken: secret.New("t"),
		IssuedAt: time.Unix(0, now), Expires: time.Unix(0, now).Add(time.Hour),
	}
}

var errGone = errors.New("the call is over")

// fakeConn is a call whose agent reads all, or, while it is stuck, nothing.
type fakeConn struct {
	mu       sync.Mutex
	sent     []Message
	times    []time.Time
	stuck    chan struct{} // nil: not stuck
	inSend   int
	over     chan struct{}
	finished bool
	reason   error
	finishes int
	onSend   func(Message)
	lag      time.Duration // until a Send notices the end of the call
}

func newConn() *fakeConn { return &fakeConn{over: make(chan struct{})} }

func (c *fakeConn) Send(m Message) error {
	c.mu.Lock()
	c.inSend++
	if c.inSend > 1 {
		panic("Send was called concurrently")
	}
	stuck, onSend := c.stuck, c.onSend
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.inSend--
		c.mu.Unlock()
	}()
	if onSend != nil {
		onSend(m)
	}
	if stuck != nil {
		select {
		case <-stuck:
		case <-c.over:
			<-time.After(c.lag)
			return errGone
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.finished {
		return errGone
	}
	c.sent = append(c.sent, m)
	c.times = append(c.times, time.Now())
	return nil
}

func (c *fakeConn) Finish(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finishes++
	if c.finishes > 1 {
		panic("Finish was called twice")
	}
	c.hangUp(err)
}

// hangUp ends the call; with c.mu held.
func (c *fakeConn) hangUp(err error) {
	if !c.finished {
		c.finished, c.reason = true, err
		close(c.over)
	}
}

// cancel is the agent's end of the call.
func (c *fakeConn) cancel() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hangUp(errGone)
}

func (c *fakeConn) stick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stuck = make(chan struct{})
}

func (c *fakeConn) read() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.stuck)
	c.stuck = nil
}

// take gives what was sent since the last take.
func (c *fakeConn) take() []Message {
	c.mu.Lock()
	defer c.mu.Unlock()
	sent := c.sent
	c.sent, c.times = nil, nil
	return sent
}

// agent is one agent with its open stream.
type agent struct {
	*fakeConn
	stream *Stream
	in     chan Request
	done   chan struct{}
	err    error
}

// broker is a registry with everything around it.
type broker struct {
	*Registry
	t         *testing.T
	directory *fakeDirectory
	checker   *fakeChecker
	leases    *fakeLeases
	// skew is what the wall clock is ahead of the real one.
	skew atomic.Int64
}

func newBroker(t *testing.T, change ...func(*Config)) *broker {
	t.Helper()
	b := &broker{
		t:         t,
		directory: &fakeDirectory{grants: map[string]storage.Grant{}, revoked: map[string]string{}},
		checker:   &fakeChecker{refused: map[string]*reason.Error{}},
		leases:    &fakeLeases{current: map[string]*lease.Credential{}, subs: map[*fakeSubscription]struct{}{}},
	}
	c := Config{
		Directory: b.directory, Checker: b.checker, Leases: b.leases,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Now: func() time.Time { return time.Now().Add(time.Duration(b.skew.Load())) },
	}
	for _, f := range change {
		f(&c)
	}
	r, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	b.Registry = r
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return b
}

// grants adds grants of tenant t1; id and name are the same.
func (b *broker) grants(names ...string) {
	for _, name := range names {
		b.directory.put(storage.Grant{Meta: storage.Meta{ID: name}, TenantID: "t1", Name: name})
	}
}

// principal is user u1 on agent a<n> of tenant t1.
func principal(n int) authn.Principal {
	return authn.Principal{
		Peer: authn.Peer{
			Kind: authn.Agent, Tenant: "tenant-1", Agent: fmt.Sprintf("agent-%d", n), Address: "192.0.2.1:5",
			Certificate: authn.Certificate{
				ID: fmt.Sprintf("spiffe://stoker.test/tenant/tenant-1/agent/agent-%d", n), Serial: fmt.Sprintf("c%d", n),
				NotAfter: time.Now().Add(90 * 24 * time.Hour),
			},
		},
		TenantID: "t1", AgentID: fmt.Sprintf("a%d", n), UserID: "u1", Login: "ann", PasswordVersion: 1,
	}
}

// connect opens a stream and sends the requests.
func (b *broker) connect(p authn.Principal, requests ...Request) *agent {
	b.t.Helper()
	return b.connectOver(newConn(), p, requests...)
}

func (b *broker) connectOver(c *fakeConn, p authn.Principal, requests ...Request) *agent {
	b.t.Helper()
	s, err := b.Open(&p, c)
	if err != nil {
		b.t.Fatal(err)
	}
	a := &agent{fakeConn: c, stream: s, in: make(chan Request), done: make(chan struct{})}
	go func() {
		defer close(a.done)
		a.err = s.Close(a.receive())
	}()
	b.t.Cleanup(a.end)
	for _, r := range requests {
		a.say(r)
	}
	return a
}

// receive does what a handler does.
func (a *agent) receive() error {
	for {
		select {
		case <-a.over:
			return errGone
		case r := <-a.in:
			if err := a.stream.Handle(r); err != nil {
				return err
			}
		}
	}
}

// say sends a request, unless the call is over.
func (a *agent) say(r Request) {
	select {
	case a.in <- r:
	case <-a.done:
	}
}

// end hangs up and waits for the handler.
func (a *agent) end() {
	a.cancel()
	<-a.done
}

// ended fails unless the stream has ended for that reason.
func (a *agent) ended(t *testing.T, want reason.Reason) {
	t.Helper()
	synctest.Wait()
	select {
	case <-a.done:
	default:
		t.Fatalf("the stream is open, want an end with %s", want)
	}
	if got := reason.Of(a.err); got != want {
		t.Fatalf("ended with %q (%v), want %q", got, a.err, want)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if reason.Of(a.reason) != want {
		t.Errorf("the agent was told %v, want %s", a.reason, want)
	}
}

func (a *agent) alive(t *testing.T) {
	t.Helper()
	synctest.Wait()
	select {
	case <-a.done:
		t.Fatalf("the stream ended: %v", a.err)
	default:
	}
}

// names tells what messages are, for comparisons.
func names(messages []Message) []string {
	list := make([]string, len(messages))
	for i, m := range messages {
		switch {
		case m.Welcome != nil:
			list[i] = "welcome"
		case m.Credential != nil:
			list[i] = "credential " + m.Credential.Grant
		case m.Problem != nil:
			list[i] = fmt.Sprintf("problem %s %s", m.Problem.Grant, m.Problem.Err.Reason)
		case m.Revoked != nil:
			list[i] = fmt.Sprintf("revoked %s %s", m.Revoked.Grant, m.Revoked.Err.Reason)
		case m.Reconnect != nil:
			list[i] = "reconnect"
		case m.Heartbeat != nil:
			list[i] = "heartbeat"
		default:
			list[i] = "nothing"
		}
	}
	return list
}

// sent checks what the agent got since the last look.
func (a *agent) got(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	if got := names(a.take()); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("the agent got %q, want %q", got, want)
	}
}

func change(kind storage.Kind, id string) []storage.Change {
	return []storage.Change{{Sequence: 1, Kind: kind, ID: id}}
}

// rest lets the bubble's time pass, and everything happen that is due.
func rest(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}
