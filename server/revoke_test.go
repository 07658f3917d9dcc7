package server_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server"
	"github.com/stokerd/stoker/server/internal/brokertest"
	"github.com/stokerd/stoker/server/internal/issuer/devsts"
	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/reason"
)

// inlinePolicy is the broker's policy on the user or role.
const inlinePolicy = "stoker-revocations"

// denying is a broker whose account denies what was issued to revoked parties.
type denying struct {
	*brokertest.Broker
	// ahead moves the clock of the STS.
	ahead atomic.Int64
	// subject is the ARN of the user or role whose policy it is.
	subject string
}

func denyingSite(t testing.TB, method string, change func(*server.AccountConfig)) *denying {
	t.Helper()
	d := &denying{subject: "arn:aws:iam::000000000000:user/stoker"}
	d.Broker = site(t, brokertest.Options{
		STS: func(c *devsts.Config) {
			c.Clock = func() time.Time { return time.Now().Add(time.Duration(d.ahead.Load())) }
			c.Roles = []devsts.Role{{Name: "backup", MaxLifetime: 12 * time.Hour}}
		},
		Configure: func(c *server.Config) {
			a := c.Accounts["main"]
			a.Revocation, a.Method = "apply", method
			if method == "assume_role" {
				a.RoleARN = "arn:aws:iam::000000000000:role/backup"
				d.subject = a.RoleARN
			}
			if change != nil {
				change(&a)
			}
			c.Accounts["main"] = a
		},
	})
	return d
}

// revoke revokes and gives the answer and when it came.
func (d *denying) revoke(t testing.TB, r *stokerv1.RevokeRequest) (*stokerv1.RevokeResponse, time.Time) {
	t.Helper()
	r.Reason = "stolen"
	answer, err := stokerv1.NewFleetServiceClient(d.Admin).Revoke(t.Context(), r)
	acknowledged := time.Now()
	wantOK(t, err)
	return answer, acknowledged
}

// becomes waits until a revocation is in a state, and gives it.
func (d *denying) becomes(t testing.TB, id string, want stokerv1.RevocationState) *stokerv1.RevocationRecord {
	t.Helper()
	fleet, last := stokerv1.NewFleetServiceClient(d.Admin), "not listed"
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(patience); ; {
		listed, err := fleet.ListRevocations(t.Context(), &stokerv1.ListRevocationsRequest{ShowExpired: true})
		wantOK(t, err)
		for _, r := range listed.GetRevocations() {
			if r.GetId() != id {
				continue
			}
			if r.GetState() == want {
				return r
			}
			last = r.String()
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("the revocation is %s, want %s", last, want)
		}
	}
}

// probe tries a credential out on its own prefix, and gives AWS's code.
func (d *denying) probe(t testing.TB, c *stokerv1.Credential) string {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	client := s3.New(s3.Options{
		Region: "us-east-1", BaseEndpoint: aws.String(d.STS.URL()), UsePathStyle: true, Retryer: aws.NopRetryer{},
		HTTPClient: &http.Client{Transport: transport},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: c.GetAccessKeyId(), SecretAccessKey: c.GetSecretAccessKey(), SessionToken: c.GetSessionToken()}, nil
		}),
	})
	_, err := client.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{
		Bucket: aws.String(c.GetTarget().GetBucket()), Prefix: aws.String(c.GetTarget().GetPrefix()),
	})
	if err == nil {
		return ""
	}
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		t.Fatal(err)
	}
	if strings.Contains(api.ErrorMessage(), "with an explicit deny in an identity-based policy") {
		return "denied by the account"
	}
	return api.ErrorCode()
}

// party is one kind of party to revoke.
type party struct {
	kind string
	// request names the party to which the agent belongs.
	request func(a agent, c *stokerv1.Credential) *stokerv1.RevokeRequest
	// ends is the reason with which streams end; else they are told of it.
	ends, told reason.Reason
	// restore lets the party in again. Nil: nothing was shut.
	restore func(testing.TB, *brokertest.Broker, agent)
}

var parties = []party{
	{
		kind: "credential", told: reason.CredentialRevoked,
		request: func(_ agent, c *stokerv1.Credential) *stokerv1.RevokeRequest {
			return &stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Credential{Credential: c.GetId()}}
		},
	},
	{
		kind: "grant", told: reason.GrantDisabled,
		request: func(a agent, _ *stokerv1.Credential) *stokerv1.RevokeRequest {
			return &stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Grant{Grant: a.tenant + "/nightly"}}
		},
		restore: func(t testing.TB, b *brokertest.Broker, a agent) {
			t.Helper()
			_, err := stokerv1.NewGrantServiceClient(b.Admin).UpdateGrant(t.Context(), &stokerv1.UpdateGrantRequest{
				Grant: &stokerv1.Grant{Tenant: a.tenant, Name: "nightly"}, UpdateMask: mask("disabled"),
			})
			wantOK(t, err)
		},
	},
	{
		kind: "agent", ends: reason.AgentDisabled,
		request: func(a agent, _ *stokerv1.Credential) *stokerv1.RevokeRequest {
			return &stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Agent{Agent: a.tenant + "/" + a.name}}
		},
		restore: func(t testing.TB, b *brokertest.Broker, a agent) {
			t.Helper()
			_, err := stokerv1.NewAgentServiceClient(b.Admin).UpdateAgent(t.Context(), &stokerv1.UpdateAgentRequest{
				Agent: &stokerv1.Agent{Tenant: a.tenant, Name: a.name}, UpdateMask: mask("disabled"),
			})
			wantOK(t, err)
		},
	},
	{
		kind: "user", ends: reason.UserDisabled,
		request: func(a agent, _ *stokerv1.Credential) *stokerv1.RevokeRequest {
			return &stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_User{User: a.login + "@" + a.tenant}}
		},
		restore: func(t testing.TB, b *brokertest.Broker, a agent) { t.Helper(); disableUser(t, b, a, false) },
	},
	{
		kind: "tenant", ends: reason.TenantDisabled,
		request: func(a agent, _ *stokerv1.Credential) *stokerv1.RevokeRequest {
			return &stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Tenant{Tenant: a.tenant}}
		},
		restore: func(t testing.TB, b *brokertest.Broker, a agent) {
			t.Helper()
			_, err := stokerv1.NewTenantServiceClient(b.Admin).UpdateTenant(t.Context(), &stokerv1.UpdateTenantRequest{
				Tenant: &stokerv1.Tenant{Name: a.tenant}, UpdateMask: mask("disabled"),
			})
			wantOK(t, err)
		},
	},
}

// issuedTo counts the credentials that STS gave out for a tenant's prefix.
func issuedTo(b *brokertest.Broker, tenant string) (n int) {
	for _, issued := range b.STS.Issued() {
		if strings.Contains(issued.Policy, tenant+"/") {
			n++
		}
	}
	return n
}

// Revoking a party ends or tells its stream, shuts it out, and has the account
// deny what it holds, and nothing else: neither other tenants' credentials nor
// those that it gets once it is let in again.
func TestRevokedPartiesLoseWhatTheyHold(t *testing.T) {
	for _, method := range []string{"federation_token", "assume_role"} {
		for _, p := range parties {
			if method == "assume_role" && p.kind != "credential" && p.kind != "tenant" {
				continue // nothing in it depends on the method
			}
			t.Run(method+" "+p.kind, func(t *testing.T) {
				d := denyingSite(t, method, nil)
				a, other := join(t, d.Broker, "acme", time.Hour).session(t), join(t, d.Broker, "other", time.Hour)
				s, kept := subscribe(t, a), subscribe(t, other)
				old, others := s.credential(), kept.credential()
				if got := d.probe(t, old) + d.probe(t, others); got != "" {
					t.Fatalf("before anything happened: %s", got)
				}
				answer, acknowledged := d.revoke(t, p.request(a, old))
				before := issuedTo(d.Broker, "acme")
				d.told(t, p, s, old, acknowledged)
				revoked := answer.GetRevocations()
				if len(revoked) != 1 || revoked[0].GetAccount() != "main" || revoked[0].GetState() != stokerv1.RevocationState_REVOCATION_STATE_PENDING {
					t.Fatalf("answered %v", answer)
				}
				d.becomes(t, revoked[0].GetId(), stokerv1.RevocationState_REVOCATION_STATE_APPLIED)
				if d.STS.InlinePolicy(d.subject, inlinePolicy) == "" {
					t.Error("applied, and no policy stands")
				}
				if old, others := d.probe(t, old), d.probe(t, others); old != "denied by the account" || others != "" {
					t.Errorf("the revoked credential: %q, another tenant's: %q", old, others)
				}
				if p.restore == nil {
					// A credential's holder goes on with another at once.
					if got := d.probe(t, s.credential()); got != "" {
						t.Errorf("the next credential: %s", got)
					}
					return
				}
				_, err := a.fetch(t, "nightly")
				wantReason(t, err, p.ends+p.told)
				if n := issuedTo(d.Broker, "acme"); n != before {
					t.Errorf("%d credentials were issued after the acknowledgement", n-before)
				}
				d.ahead.Store(int64(10 * time.Second))
				p.restore(t, d.Broker, a)
				got, err := a.fetch(t, "nightly")
				wantOK(t, err)
				if next, old := d.probe(t, got[0]), d.probe(t, old); next != "" || old != "denied by the account" {
					t.Errorf("the credential after it: %q, the one before: %q", next, old)
				}
			})
		}
	}
}

// told checks that the stream was told in time of what the revocation means to
// it, and got no credential that was issued after the acknowledgement.
func (d *denying) told(t *testing.T, p party, s *watched, old *stokerv1.Credential, acknowledged time.Time) {
	t.Helper()
	if p.ends == "" {
		r := s.revocation(p.told)
		if single := r.GetCredentialId() != ""; single != (p.kind == "credential") || single && r.GetCredentialId() != old.GetId() {
			t.Errorf("told of %v", r)
		}
		if late := time.Since(acknowledged); late > prompt {
			t.Errorf("told %s after the acknowledgement", late)
		}
		return
	}
	for _, m := range s.end() {
		if c := m.GetCredential(); c != nil && c.GetIssueTime().AsTime().After(acknowledged) {
			t.Errorf("a credential was issued %s after the acknowledgement", c.GetIssueTime().AsTime().Sub(acknowledged))
		}
	}
	wantReason(t, s.err, p.ends)
	if late := s.at.Sub(acknowledged); late > prompt {
		t.Errorf("the stream ended %s after the acknowledgement", late)
	}
}

// A certificate's revocation ends its streams; what was issued to it runs out,
// so that no account has anything to do.
func TestRevokedCertificate(t *testing.T) {
	d := denyingSite(t, "federation_token", nil)
	a := join(t, d.Broker, "acme", time.Hour).session(t)
	s := subscribe(t, a)
	old := s.credential()
	answer, acknowledged := d.revoke(t, &stokerv1.RevokeRequest{
		Target: &stokerv1.RevokeRequest_Certificate{Certificate: pki.Serial(brokertest.Leaf(a.cert))},
	})
	d.told(t, party{kind: "certificate", ends: reason.CertificateRevoked}, s, old, acknowledged)
	if r := answer.GetRevocations(); len(r) != 1 || r[0].GetAccount() != "" || r[0].GetState() != stokerv1.RevocationState_REVOCATION_STATE_LOCAL || answer.GetStreamsEnded() != 1 {
		t.Errorf("answered %v", answer)
	}
	if got := d.probe(t, old); got != "" {
		t.Errorf("the credential: %s", got)
	}
	_, err := a.fetch(t, "nightly")
	wantReason(t, err, reason.CertificateRevoked)
	again := a.with(d.Broker, d.Certify("acme", a.name)).session(t)
	again.works(t)
}

// The way of one revocation: pending, failed while the account refuses,
// applied, expired, each recorded; at the end nothing is left on the account.
func TestARevocationRunsItsCourse(t *testing.T) {
	t.Parallel() // it waits most of the time
	d := denyingSite(t, "federation_token", func(a *server.AccountConfig) { a.MaxLifetime = 3 * time.Second })
	a := join(t, d.Broker, "acme", 3*time.Second)
	s := subscribe(t, a)
	s.credential()
	wantOK(t, d.STS.Inject(devsts.Fault{Kind: devsts.Deny, Action: "PutUserPolicy"}))
	answer, _ := d.revoke(t, &stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Tenant{Tenant: "acme"}})
	id := answer.GetRevocations()[0].GetId()
	if got := answer.GetRevocations()[0].GetState(); got != stokerv1.RevocationState_REVOCATION_STATE_PENDING {
		t.Errorf("at first %s", got)
	}
	failed := d.becomes(t, id, stokerv1.RevocationState_REVOCATION_STATE_FAILED)
	if !strings.Contains(failed.GetProblem(), "not authorized to perform: iam:PutUserPolicy") {
		t.Errorf("the problem is %q", failed.GetProblem())
	}
	d.STS.ClearFaults()
	if applied := d.becomes(t, id, stokerv1.RevocationState_REVOCATION_STATE_APPLIED); applied.GetProblem() != "" {
		t.Errorf("the problem is still %q", applied.GetProblem())
	}
	if expired := d.becomes(t, id, stokerv1.RevocationState_REVOCATION_STATE_EXPIRED); time.Now().Before(expired.GetUntilTime().AsTime()) {
		t.Errorf("expired before %s", expired.GetUntilTime().AsTime())
	}
	if left := d.STS.InlinePolicy(d.subject, inlinePolicy); left != "" {
		t.Errorf("left: %s", left)
	}
	listed, err := stokerv1.NewFleetServiceClient(d.Admin).ListRevocations(t.Context(), &stokerv1.ListRevocationsRequest{})
	wantOK(t, err)
	if len(listed.GetRevocations()) != 0 {
		t.Errorf("still listed: %v", listed)
	}
	for _, event := range []string{"revocation.created", "revocation.failed", "revocation.applied", "revocation.expired"} {
		if got := records(t, d.Broker, event, "acme", ""); len(got) != 1 || got[0].GetDetail()["revocation_id"] != id {
			t.Errorf("%s is recorded as %v", event, got)
		}
	}
}

// A broker that was stopped between the acknowledgement and the writing writes
// when it is back.
func TestAPendingRevocationSurvivesARestart(t *testing.T) {
	d := denyingSite(t, "assume_role", nil)
	a := join(t, d.Broker, "acme", time.Hour)
	old, err := a.fetch(t, "nightly")
	wantOK(t, err)
	wantOK(t, d.STS.Inject(devsts.Fault{Kind: devsts.Unavailable, Action: "ListRolePolicies"}))
	answer, _ := d.revoke(t, &stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_User{User: "backup@acme"}})
	d.Restart()
	if got := d.probe(t, old[0]); got != "" {
		t.Errorf("while IAM is away: %s", got)
	}
	d.STS.ClearFaults()
	d.becomes(t, answer.GetRevocations()[0].GetId(), stokerv1.RevocationState_REVOCATION_STATE_APPLIED)
	if got := d.probe(t, old[0]); got != "denied by the account" {
		t.Errorf("when it is back: %q", got)
	}
}

// swarm is many streams of one tenant's agents.
type swarm struct {
	*denying
	t       *testing.T // whose context the streams live in
	agents  []agent
	streams [][]*listener // by agent
}

// listener notes when its stream was supplied, was told of a revocation, and
// ended.
type listener struct {
	ended  chan struct{}
	cancel context.CancelFunc
	// endedAt and err are set before ended closes.
	endedAt time.Time
	err     error

	mu             sync.Mutex
	supplied, told chan struct{} // closed when it has happened
	toldAt         time.Time
	credential     *stokerv1.Credential
}

// listen opens a stream of the agent's.
func listen(t testing.TB, a agent) *listener {
	t.Helper()
	ctx, cancel := context.WithCancel(a.ctx(t))
	l := &listener{ended: make(chan struct{}), supplied: make(chan struct{}), cancel: cancel}
	l.arm()
	s, err := stokerv1.NewCredentialServiceClient(a.conn).StreamCredentials(ctx)
	wantOK(t, err)
	wantOK(t, s.Send(&stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_Subscribe{Subscribe: &stokerv1.Subscribe{}}}))
	go func() {
		defer cancel()
		for {
			m, err := s.Recv()
			if err != nil {
				l.err, l.endedAt = err, time.Now()
				close(l.ended)
				return
			}
			l.note(m)
		}
	}()
	return l
}

// arm waits for the next revocation.
func (l *listener) arm() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told, l.toldAt = make(chan struct{}), time.Time{}
}

func (l *listener) note(m *stokerv1.StreamCredentialsResponse) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m.GetRevocation() != nil && l.toldAt.IsZero() {
		l.toldAt = time.Now()
		// What follows is another credential.
		l.credential, l.supplied = nil, make(chan struct{})
		close(l.told)
	}
	if c := m.GetCredential(); c != nil {
		if l.credential == nil {
			close(l.supplied)
		}
		l.credential = c
	}
}

// supply waits for a credential and gives it.
func (l *listener) supply(t *testing.T) *stokerv1.Credential {
	t.Helper()
	l.mu.Lock()
	supplied := l.supplied
	l.mu.Unlock()
	select {
	case <-supplied:
	case <-l.ended:
		t.Fatalf("the stream ended with %v before a credential", l.err)
	case <-time.After(patience):
		t.Fatalf("no credential in %s", patience)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.credential
}

// cutOff waits until the stream was told, or ended with the reason, and gives
// the time.
func (l *listener) cutOff(t *testing.T, p party) time.Time {
	t.Helper()
	if p.ends != "" {
		await(t, l.ended, "end")
		wantReason(t, l.err, p.ends)
		return l.endedAt
	}
	await(t, l.told, "revocation")
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.toldAt
}

// untouched says whether the stream is open and was told of nothing.
func (l *listener) untouched() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open() && l.toldAt.IsZero()
}

// open reports whether the stream has not ended.
func (l *listener) open() bool {
	select {
	case <-l.ended:
		return false
	default:
		return true
	}
}

// fill opens streams until each agent has as many as it may have.
func (s *swarm) fill(t *testing.T, each int) {
	t.Helper()
	for i, a := range s.agents {
		s.streams[i] = slices.DeleteFunc(s.streams[i], func(l *listener) bool { return !l.open() })
		for len(s.streams[i]) < each {
			s.streams[i] = append(s.streams[i], listen(s.t, a))
		}
	}
	for _, l := range s.all() {
		l.supply(t)
		l.arm()
	}
}

func (s *swarm) all() []*listener { return slices.Concat(s.streams...) }

func await(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("no %s in %s", what, patience)
	}
}

// A thousand streams learn of a revocation as one does. The times from the
// acknowledgement to the last of them are in the log.
func TestAThousandStreamsAreCutOff(t *testing.T) {
	const agents, each = 125, 8
	d := denyingSite(t, "federation_token", nil)
	acme := join(t, d.Broker, "acme", time.Hour)
	other := listen(t, join(t, d.Broker, "other", time.Hour))
	other.supply(t)
	s := &swarm{denying: d, t: t, streams: make([][]*listener, agents)}
	for i := range agents {
		a := acme
		a.name = "agent-" + strings.Repeat("i", i%40) + string(rune('a'+i/40))
		s.agents = append(s.agents, a.with(d.Broker, d.Agent("acme", a.name)).session(t))
	}
	kinds := slices.Clone(parties)
	kinds = append(kinds, party{
		kind: "certificate", ends: reason.CertificateRevoked,
		request: func(a agent, _ *stokerv1.Credential) *stokerv1.RevokeRequest {
			return &stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Certificate{Certificate: pki.Serial(brokertest.Leaf(a.cert))}}
		},
	})
	for _, p := range kinds {
		t.Run(p.kind, func(t *testing.T) {
			s.fill(t, each)
			// The first agent is the one that is meant.
			concerned, rest := s.all(), []*listener(nil)
			if p.kind == "credential" || p.kind == "agent" || p.kind == "certificate" {
				concerned, rest = s.streams[0], slices.Concat(s.streams[1:]...)
			}
			request := p.request(s.agents[0], concerned[0].supply(t))
			asked := time.Now()
			answer, acknowledged := d.revoke(t, request)
			issued := issuedTo(d.Broker, "acme")
			var last time.Time
			for _, l := range concerned {
				if at := l.cutOff(t, p); last.Before(at) {
					last = at
				}
			}
			// Below zero: before the operator had the answer.
			t.Logf("%s revoked with %d streams open: of %d concerned the last was cut off %s after the acknowledgement, %s after the request",
				p.kind, len(concerned)+len(rest), len(concerned), last.Sub(acknowledged).Round(10*time.Microsecond), last.Sub(asked).Round(10*time.Microsecond))
			if late := last.Sub(acknowledged); late > patience/2 {
				t.Errorf("the last stream was cut off %s after the acknowledgement", late)
			}
			if p.ends != "" && int(answer.GetStreamsEnded()) != len(concerned) {
				t.Errorf("the answer says that %d streams ended", answer.GetStreamsEnded())
			}
			for _, l := range rest {
				if !l.untouched() {
					t.Fatal("a stream that is not concerned was told, or ended")
				}
			}
			if n := issuedTo(d.Broker, "acme"); n != issued && len(rest) == 0 {
				t.Errorf("%d credentials were issued after the acknowledgement", n-issued)
			}
			s.letIn(t, p)
		})
	}
	if !other.untouched() {
		t.Error("another tenant's stream was told, or ended")
	}
	other.cancel()
	await(t, other.ended, "end")
	for _, l := range s.all() {
		l.cancel()
		await(t, l.ended, "end")
	}
}

// letIn takes the revocation back, as far as that goes.
func (s *swarm) letIn(t *testing.T, p party) {
	t.Helper()
	if p.restore != nil {
		p.restore(t, s.Broker, s.agents[0])
	}
	if p.kind == "certificate" {
		a := s.agents[0]
		s.agents[0] = a.with(s.Broker, s.Certify("acme", a.name)).session(s.t)
	}
}
