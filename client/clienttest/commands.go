package clienttest

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/stokerd/stoker/client"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

// Push issues a credential that lives that long and sends it to every stream
// that has the grant. A grant not known so far is added.
func (b *Broker) Push(grant string, life time.Duration) client.Credential {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.withdrawn, grant)
	c := b.issue(grant, life)
	b.send(grant, credentialMessage(c))
	return *c
}

// Problem tells the streams that have the grant that it cannot be supplied, and
// that the broker tries again after retry; 0: not until something changes. An
// empty grant concerns the whole stream.
func (b *Broker) Problem(grant string, problem client.Error, retry time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := &stokerv1.Problem{Grant: grant, Status: detail(problem)}
	if retry > 0 {
		m.RetryTime = timestamppb.New(b.now().Add(retry))
	}
	if c := b.grants[grant]; c != nil {
		m.GoodUntil = timestamppb.New(c.Expires)
	}
	b.send(grant, problemMessage(m))
}

// Revoke takes the grant's credential away and tells the streams that have it.
// With CREDENTIAL_REVOKED that is all, and who subscribes gets another. For any
// other reason the grant is refused to everybody until the next Push.
func (b *Broker) Revoke(grant string, reason client.Reason) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := &stokerv1.Revocation{Grant: grant, Status: detail(client.Error{Reason: reason, Message: "revoked by the test"})}
	if c := b.grants[grant]; c != nil && reason == client.ReasonCredentialRevoked {
		m.CredentialId = c.ID
	}
	if reason != client.ReasonCredentialRevoked {
		b.withdrawn[grant] = reason
	}
	b.grants[grant] = nil
	b.send(grant, revocationMessage(m))
}

// Reconnect asks all streams to come back after the delay, and ends them.
func (b *Broker) Reconnect(delay time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.send("", reconnectMessage(delay))
	for s := range b.streams {
		s.end(nil)
	}
}

// Send sends any message to all streams, such as one that no broker should send.
func (b *Broker) Send(message *stokerv1.StreamCredentialsResponse) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.send("", message)
}

// EndStreams ends all streams with the error, or with OK for nil.
func (b *Broker) EndStreams(problem *client.Error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.streams {
		s.end(problem)
	}
}

// EndSessions makes all access tokens useless, and ends their streams, for the
// reason.
func (b *Broker) EndSessions(reason client.Reason) {
	b.mu.Lock()
	defer b.mu.Unlock()
	ended := &client.Error{Reason: reason, Message: "ended by the test"}
	for _, s := range b.sessions {
		s.ended = ended
	}
	for s := range b.streams {
		s.end(ended)
	}
}

// RefuseLogin refuses all logins with the error; nil accepts them again.
func (b *Broker) RefuseLogin(problem *client.Error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refuseLogin = problem
}

// RefuseStreams refuses all new streams with the error; nil accepts them again.
func (b *Broker) RefuseStreams(problem *client.Error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refuseStreams = problem
}

// issue makes up a credential and makes it the grant's present one. It needs mu.
func (b *Broker) issue(grant string, life time.Duration) *client.Credential {
	id := make([]byte, 16)
	// Read of crypto/rand never fails.
	_, _ = rand.Read(id)
	id[6], id[8] = id[6]&0x0f|0x70, id[8]&0x3f|0x80
	h := hex.EncodeToString(id)
	now := b.now()
	// Issue times increase strictly, also where a test's clock stands still.
	if last := b.issued[grant]; !now.After(last) {
		now = last.Add(time.Nanosecond)
	}
	b.issued[grant] = now
	c := &client.Credential{
		ID:              strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-"),
		Grant:           grant,
		AccessKeyID:     "ASIA" + rand.Text()[:16],
		SecretAccessKey: rand.Text() + rand.Text(),
		SessionToken:    rand.Text() + rand.Text() + rand.Text(),
		Issued:          now,
		Expires:         now.Add(life),
		Target:          client.Target{Bucket: "backups", Prefix: "acme/" + grant + "/", Region: "eu-central-1"},
		Access:          "backup",
	}
	b.grants[grant] = c
	return c
}

// unavailable says why nothing is issued for a grant, or nil. It needs mu.
func (b *Broker) unavailable(grant string) *client.Error {
	if reason, withdrawn := b.withdrawn[grant]; withdrawn {
		return &client.Error{Reason: reason, Grant: grant, Message: "revoked by the test"}
	}
	if _, known := b.grants[grant]; !known {
		return &client.Error{Reason: client.ReasonGrantUnknown, Grant: grant, Message: "no such grant"}
	}
	return nil
}

// present gives the grant's credential, issuing one where there is none that is
// good. It needs mu.
func (b *Broker) present(grant string) *client.Credential {
	if c := b.grants[grant]; c != nil && c.Expires.After(b.now()) {
		return c
	}
	return b.issue(grant, b.settings.lifetime)
}

// send files a message for every stream that has the grant; "" means all. It
// needs mu.
func (b *Broker) send(grant string, message *stokerv1.StreamCredentialsResponse) {
	for s := range b.streams {
		if grant == "" || s.has(grant) {
			s.file(message)
		}
	}
}

// statusOf makes the status that a broker would answer.
func statusOf(problem client.Error) *status.Status {
	code := codes.PermissionDenied
	if client.Transient(problem.Reason) {
		code = codes.Unavailable
	}
	if problem.Reason == "" {
		return status.New(codes.Unavailable, problem.Message)
	}
	info := &errdetails.ErrorInfo{Reason: string(problem.Reason), Domain: "stoker"}
	if problem.Grant != "" {
		info.Metadata = map[string]string{"grant": problem.Grant}
	}
	details := []protoadapt.MessageV1{info}
	if problem.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(problem.RetryAfter)})
	}
	if problem.RequestID != "" {
		details = append(details, &errdetails.RequestInfo{RequestId: problem.RequestID})
	}
	st, err := status.New(code, problem.Message).WithDetails(details...)
	if err != nil {
		return status.New(codes.Internal, fmt.Sprintf("clienttest: %v", err))
	}
	return st
}

func detail(problem client.Error) *statuspb.Status { return statusOf(problem).Proto() }

func credentialMessage(c *client.Credential) *stokerv1.StreamCredentialsResponse {
	return &stokerv1.StreamCredentialsResponse{Message: &stokerv1.StreamCredentialsResponse_Credential{Credential: toProto(c)}}
}

func problemMessage(p *stokerv1.Problem) *stokerv1.StreamCredentialsResponse {
	return &stokerv1.StreamCredentialsResponse{Message: &stokerv1.StreamCredentialsResponse_Problem{Problem: p}}
}

func revocationMessage(r *stokerv1.Revocation) *stokerv1.StreamCredentialsResponse {
	return &stokerv1.StreamCredentialsResponse{Message: &stokerv1.StreamCredentialsResponse_Revocation{Revocation: r}}
}

func reconnectMessage(delay time.Duration) *stokerv1.StreamCredentialsResponse {
	return &stokerv1.StreamCredentialsResponse{Message: &stokerv1.StreamCredentialsResponse_Reconnect{
		Reconnect: &stokerv1.Reconnect{Delay: durationpb.New(delay)},
	}}
}

func toProto(c *client.Credential) *stokerv1.Credential {
	return &stokerv1.Credential{
		Id: c.ID, Grant: c.Grant,
		AccessKeyId: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken,
		IssueTime: timestamppb.New(c.Issued), ExpireTime: timestamppb.New(c.Expires),
		Target: toTarget(c), Access: stokerv1.Access_ACCESS_BACKUP,
	}
}

func toTarget(c *client.Credential) *stokerv1.Target {
	return &stokerv1.Target{
		Bucket: c.Target.Bucket, Prefix: c.Target.Prefix, Region: c.Target.Region,
		Endpoint: c.Target.Endpoint, KmsKeyArn: c.Target.KMSKeyARN,
	}
}
