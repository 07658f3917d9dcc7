package server_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/brokertest"
	"github.com/stokerd/stoker/server/internal/history"
	"github.com/stokerd/stoker/server/internal/pki"
)

// player is one running program on an agent. Two share each agent's name, each
// with a certificate of its own.
type player struct {
	w      *world
	tenant *company
	agent  string
	draw   *rand.Rand

	conn   *grpc.ClientConn
	serial string
	end    time.Time
	who    person
	token  string
	// session is that of the token.
	session string
	// held is what an agent would have kept.
	held map[string]*stokerv1.HeldCredential
	// because is the last reason for which it was refused.
	because string
}

func newPlayer(w *world, tenant *company, agent string, twin int) *player {
	return &player{
		w: w, tenant: tenant, agent: agent, draw: w.draw(fmt.Sprintf("%s/%s/%d", tenant.name, agent, twin)),
		held: map[string]*stokerv1.HeldCredential{},
	}
}

func (p *player) chance(share float64) bool { return p.draw.Float64() < share }

// run plays until the time is over.
func (p *player) run(ctx context.Context) {
	defer func() {
		if p.conn != nil {
			_ = p.conn.Close()
		}
	}()
	for !p.w.over.Load() && ctx.Err() == nil {
		if p.conn == nil || time.Until(p.end) < time.Second || strings.HasPrefix(p.because, "CERTIFICATE_") || p.chance(0.03) {
			life := time.Hour
			if p.chance(0.3) {
				life = time.Duration(3+p.draw.IntN(5)) * time.Second
			}
			if err := p.certify(life); err != nil {
				p.w.say("%s/%s: %v", p.tenant.name, p.agent, err)
				return
			}
		}
		p.because = ""
		p.login(ctx)
		switch n := p.draw.IntN(10); {
		case n < 6:
			p.stream(ctx)
		case n < 9:
			p.call(ctx)
		default:
			p.guess(ctx)
		}
		if p.because != "" || p.chance(0.2) {
			<-time.After(time.Duration(p.draw.IntN(200)) * time.Millisecond)
		}
	}
}

// certify begins anew with a certificate.
func (p *player) certify(life time.Duration) error {
	cert, err := pki.NewPair(func(key crypto.PublicKey) (*x509.Certificate, error) {
		return p.w.authority.SignAgent(key, p.tenant.name, p.agent, life)
	})
	if err != nil {
		return err
	}
	if p.conn != nil {
		_ = p.conn.Close()
	}
	p.conn, err = p.w.dial(cert)
	p.serial, p.end, p.token, p.session = pki.Serial(cert.Leaf), cert.Leaf.NotAfter, "", ""
	p.w.mu.Lock()
	p.w.serials[p.tenant.name] = append(p.w.serials[p.tenant.name], p.serial)
	p.w.mu.Unlock()
	return err
}

// login chooses a user and, mostly, has an access token.
func (p *player) login(ctx context.Context) {
	if p.token != "" && !p.chance(0.1) {
		return
	}
	p.who, p.token, p.session = p.tenant.user(p.draw.IntN(2)), "", ""
	if p.chance(0.2) {
		return // with the password at each call
	}
	made, err := stokerv1.NewSessionServiceClient(p.conn).CreateSession(p.authorized(ctx), &stokerv1.CreateSessionRequest{})
	if err != nil {
		p.refused(err)
		return
	}
	p.token, p.session = made.GetAccessToken(), made.GetIdentity().GetSessionId()
}

// authorized has the login in it.
func (p *player) authorized(ctx context.Context) context.Context {
	if p.token != "" {
		return brokertest.Bearer(ctx, p.token)
	}
	return brokertest.Basic(ctx, p.who.login+"@"+p.tenant.name, p.who.password)
}

func (p *player) party() history.Party {
	return history.Party{
		Tenant: p.tenant.name, User: p.who.login, Agent: p.agent, Certificate: p.serial, Session: p.session, Password: p.who.version,
	}
}

// refused notes why, and forgets a token that is good for nothing.
func (p *player) refused(err error) {
	p.because = reasonOf(err)
	if p.because == "" {
		p.because = status.Code(err).String()
	}
	if !slices.Contains([]string{"Unavailable", "DeadlineExceeded", "Canceled"}, p.because) {
		p.token, p.session = "", ""
	}
}

// received notes a credential.
func (p *player) received(stream int, asked time.Time, c *stokerv1.Credential) {
	party := p.party()
	party.Grant, party.Credential = c.GetGrant(), c.GetId()
	r := history.Received{
		Party: party, Stream: stream, Asked: asked, At: time.Now(), AccessKeyID: c.GetAccessKeyId(), Prefix: c.GetTarget().GetPrefix(),
		Issued: c.GetIssueTime().AsTime(), Expires: c.GetExpireTime().AsTime(), CertificateEnd: p.end,
	}
	p.w.note(func(h *history.History) { h.Received = append(h.Received, r) })
	p.held[c.GetGrant()] = &stokerv1.HeldCredential{Id: c.GetId(), Grant: c.GetGrant(), ExpireTime: c.GetExpireTime()}
}

// call asks for credentials once.
func (p *player) call(ctx context.Context) {
	ctx, cancel := context.WithTimeout(p.authorized(ctx), 3*time.Second)
	defer cancel()
	request := &stokerv1.GetCredentialsRequest{}
	if p.chance(0.5) {
		request.Grants = []string{grantName(p.draw.IntN(historyGrants))}
	}
	asked := time.Now()
	got, err := stokerv1.NewCredentialServiceClient(p.conn).GetCredentials(ctx, request)
	if err != nil {
		p.refused(err)
		return
	}
	for _, c := range got.GetCredentials() {
		p.received(0, asked, c)
	}
}

// guess logs in wrongly.
func (p *player) guess(ctx context.Context) {
	ctx = metadata.NewOutgoingContext(ctx, metadata.MD{})
	_, err := stokerv1.NewSessionServiceClient(p.conn).GetSession(
		brokertest.Basic(ctx, "user-9@"+p.tenant.name, "a guess at a password"), &stokerv1.GetSessionRequest{})
	if err == nil {
		p.w.say("%s/%s: a guess was right", p.tenant.name, p.agent)
	}
}

// stream is supplied for a while.
func (p *player) stream(ctx context.Context) {
	ctx, cancel := context.WithTimeout(p.authorized(ctx), time.Duration(300+p.draw.IntN(3500))*time.Millisecond)
	defer cancel()
	p.w.mu.Lock()
	p.w.streams++
	s := history.Stream{Party: p.party(), ID: p.w.streams, Asked: time.Now(), CertificateEnd: p.end}
	p.w.mu.Unlock()
	if p.session != "" && p.chance(0.15) {
		after := time.Duration(p.draw.IntN(1500)) * time.Millisecond
		ended := p.endSession(ctx, after)
		defer func() { cancel(); <-ended }()
	}
	err := p.supplied(ctx, &s)
	s.Ended = time.Now()
	s.Reason = reasonOf(err)
	switch {
	case s.Reason != "":
		p.refused(err)
	case ctx.Err() != nil:
		s.Left, s.Reason = true, "the agent left"
	default:
		// A broker that stops says good-bye with OK, or is gone.
		s.Reason = fmt.Sprint(err)
		s.Left = p.w.stopping(s.Ended) && (errors.Is(err, io.EOF) || status.Code(err) == codes.Unavailable)
	}
	p.w.note(func(h *history.History) { h.Streams = append(h.Streams, s) })
}

// supplied reads a stream to its end.
func (p *player) supplied(ctx context.Context, s *history.Stream) error {
	stream, err := stokerv1.NewCredentialServiceClient(p.conn).StreamCredentials(ctx)
	if err != nil {
		return err
	}
	subscribe := &stokerv1.Subscribe{Client: "history"}
	if p.chance(0.3) {
		subscribe.Grants = []string{grantName(p.draw.IntN(historyGrants))}
	}
	if p.chance(0.5) {
		for _, h := range p.held {
			subscribe.Held = append(subscribe.Held, h)
		}
	}
	// What Send fails with, Recv says better.
	_ = stream.Send(&stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_Subscribe{Subscribe: subscribe}})
	if p.chance(0.2) {
		_ = stream.CloseSend()
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if m.GetWelcome() != nil {
			s.Welcomed = time.Now()
		}
		c := m.GetCredential()
		if c == nil {
			continue
		}
		p.received(s.ID, s.Asked, c)
		switch n := p.draw.IntN(20); {
		case n < 10:
			_ = stream.Send(&stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_Acknowledge{
				Acknowledge: &stokerv1.Acknowledge{CredentialId: c.GetId()},
			}})
		case n == 10:
			_ = stream.Send(&stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_ReportRefused{
				ReportRefused: &stokerv1.ReportRefused{CredentialId: c.GetId(), ErrorCode: "ExpiredToken"},
			}})
		}
	}
}

// endSession ends the player's session after a while, which is a cut-off.
func (p *player) endSession(ctx context.Context, after time.Duration) (done chan struct{}) {
	done = make(chan struct{})
	cut := history.Cut{
		Party: history.Party{Session: p.session}, What: "session ended", Ends: true, Reasons: []string{"SESSION_ENDED"},
	}
	sessions := stokerv1.NewSessionServiceClient(p.conn)
	go func() {
		defer close(done)
		select {
		case <-time.After(after):
		case <-ctx.Done():
			return
		}
		// The stream that it ends does not take it back.
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if _, err := sessions.DeleteSession(limited, &stokerv1.DeleteSessionRequest{}); err == nil {
			cut.Acknowledged = time.Now()
			p.w.note(func(h *history.History) { h.Cuts = append(h.Cuts, cut) })
		}
	}()
	return done
}

// calm is an agent that nobody disturbs, but for the broker's restarts.
type calm struct {
	*player
	got []history.Received
	// leave ends it; left is when it ended.
	leave context.CancelFunc
	ctx   context.Context
	left  time.Time
}

func newCalm(w *world, t *testing.T) *calm {
	t.Helper()
	c := &company{name: "calm", agents: []string{"agent"}}
	w.b.Tenant(c.name)
	c.users = []person{{"user", w.b.User(c.name, "user"), 1}}
	w.b.Agent(c.name, "agent")
	w.b.Grant(&stokerv1.Grant{Tenant: c.name, Name: grantName(0), Location: "main", Prefix: "calm/", Access: stokerv1.Access_ACCESS_BACKUP}, 15*time.Second)
	ctx, leave := context.WithCancel(t.Context())
	return &calm{player: newPlayer(w, c, "agent", 0), ctx: ctx, leave: leave}
}

// run holds one stream after the other, with one session, and gives back what it
// holds.
func (c *calm) run() {
	ctx := c.ctx
	defer func() { c.left = time.Now() }()
	if err := c.certify(time.Hour); err != nil {
		c.w.say("calm: %v", err)
		return
	}
	defer func() { _ = c.conn.Close() }()
	c.who = c.tenant.user(0)
	for c.token == "" && ctx.Err() == nil {
		// All others log in at the same time.
		made, err := stokerv1.NewSessionServiceClient(c.conn).CreateSession(c.authorized(ctx), &stokerv1.CreateSessionRequest{})
		if err != nil {
			c.w.say("calm: %v", err)
			<-time.After(50 * time.Millisecond)
			continue
		}
		c.token, c.session = made.GetAccessToken(), made.GetIdentity().GetSessionId()
	}
	for ctx.Err() == nil {
		if err := c.supply(c.authorized(ctx)); err != nil && ctx.Err() == nil {
			c.w.say("calm: %v", err)
			<-time.After(50 * time.Millisecond)
		}
	}
}

// supply reads one stream to its end.
func (c *calm) supply(ctx context.Context) error {
	stream, err := stokerv1.NewCredentialServiceClient(c.conn).StreamCredentials(ctx)
	if err != nil {
		return err
	}
	subscribe := &stokerv1.Subscribe{}
	for _, h := range c.held {
		subscribe.Held = append(subscribe.Held, h)
	}
	_ = stream.Send(&stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_Subscribe{Subscribe: subscribe}})
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if got := m.GetCredential(); got != nil {
			c.received(0, time.Now(), got)
			c.got = append(c.got, history.Received{At: time.Now(), Expires: got.GetExpireTime().AsTime(), AccessKeyID: got.GetAccessKeyId()})
		}
	}
}

// judge checks that the agent was never without a good credential, and that the
// restarts cost it neither a call to the STS nor a login: after the first issue
// there were only renewals, each when it was due.
func (c *calm) judge(t *testing.T) {
	t.Helper()
	if len(c.got) < 2 {
		t.Fatalf("the calm agent got %d credentials", len(c.got))
	}
	for i := range c.got[1:] {
		if gap := c.got[i+1].At.Sub(c.got[i].Expires); gap > 0 {
			t.Errorf("the calm agent had nothing for %s", gap)
		}
	}
	if last := c.got[len(c.got)-1]; last.Expires.Before(c.left) {
		t.Errorf("the calm agent had nothing at the end")
	}
	for event, want := range map[string]int{"session.created": 1, "credential.issued": 1} {
		if n := len(records(t, c.w.b, event, "calm", "agent")); n != want {
			t.Errorf("the calm agent has %d records of %s, want %d", n, event, want)
		}
	}
}
