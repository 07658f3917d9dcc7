package clienttest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"slices"
	"strings"
	"time"

	grpccredentials "google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/stokerd/stoker/client"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

// session is one login.
type session struct {
	id, login  string
	thumbprint [sha256.Size]byte
	expires    time.Time
	ended      *client.Error
}

// caller is who makes a call.
type caller struct {
	identity   *stokerv1.Identity
	thumbprint [sha256.Size]byte
	session    *session
	token      string
}

// authenticate checks what a caller presents. It needs mu.
func (b *Broker) authenticate(ctx context.Context) (caller, *client.Error) {
	from, ok := peer.FromContext(ctx)
	if !ok {
		return caller{}, refusal(client.ReasonCertificateRequired, "no peer")
	}
	info, ok := from.AuthInfo.(grpccredentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 || len(info.State.PeerCertificates[0].URIs) != 1 {
		return caller{}, refusal(client.ReasonCertificateIdentityInvalid, "one URI SAN is needed")
	}
	leaf := info.State.PeerCertificates[0]
	_, tenant, _ := strings.Cut(Login, "@")
	c := caller{
		thumbprint: sha256.Sum256(leaf.Raw),
		identity: &stokerv1.Identity{
			SpiffeId:              leaf.URIs[0].String(),
			CertificateSerial:     leaf.SerialNumber.Text(16),
			CertificateExpireTime: timestamppb.New(leaf.NotAfter),
			Tenant:                tenant,
			Agent:                 leaf.URIs[0].Path[strings.LastIndex(leaf.URIs[0].Path, "/")+1:],
		},
	}
	sent := metadata.ValueFromIncomingContext(ctx, "authorization")
	if len(sent) != 1 {
		return caller{}, refusal(client.ReasonLoginRequired, "one authorization is needed")
	}
	scheme, value, _ := strings.Cut(sent[0], " ")
	check := b.basic
	if scheme == "Bearer" {
		check = b.bearer
	}
	refused := check(&c, scheme, value)
	return c, refused
}

func (b *Broker) basic(c *caller, scheme, value string) *client.Error {
	decoded, err := base64.StdEncoding.DecodeString(value)
	if scheme != "Basic" || err != nil {
		return refusal(client.ReasonLoginMalformed, "neither Basic nor Bearer")
	}
	login, password, _ := strings.Cut(string(decoded), ":")
	known, exists := b.others[login]
	if login == Login {
		known, exists = b.password, true
	}
	switch {
	case b.refuseLogin != nil:
		b.record.refused++
		b.note()
		return b.refuseLogin
	case !exists || password != known:
		b.record.refused++
		b.note()
		return refusal(client.ReasonLoginRejected, "the login or the password is wrong")
	}
	c.identity.Login, _, _ = strings.Cut(login, "@")
	b.record.logins++
	b.note()
	return nil
}

func (b *Broker) bearer(c *caller, _, token string) *client.Error {
	s := b.sessions[token]
	switch {
	case s == nil:
		return refusal(client.ReasonTokenInvalid, "the access token is unknown")
	case s.ended != nil:
		return s.ended
	case !s.expires.After(b.now()):
		return refusal(client.ReasonTokenExpired, "the access token has expired")
	case s.thumbprint != c.thumbprint:
		return refusal(client.ReasonTokenCertificateMismatch, "the access token is of another certificate")
	}
	c.session, c.token, c.identity.Login = s, token, s.login
	c.identity.SessionId, c.identity.SessionExpireTime = s.id, timestamppb.New(s.expires)
	return nil
}

func refusal(reason client.Reason, message string) *client.Error {
	return &client.Error{Reason: reason, Message: message}
}

type sessionService struct {
	stokerv1.UnsafeSessionServiceServer
	broker *Broker
}

func (s sessionService) CreateSession(ctx context.Context, _ *stokerv1.CreateSessionRequest) (*stokerv1.CreateSessionResponse, error) {
	b := s.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	c, failed := b.authenticate(ctx)
	if failed != nil {
		return nil, statusOf(*failed).Err()
	}
	if c.session != nil {
		return nil, statusOf(*refusal(client.ReasonLoginRequired, "a password is needed")).Err()
	}
	token := rand.Text()
	made := &session{id: rand.Text(), login: c.identity.GetLogin(), thumbprint: c.thumbprint, expires: b.now().Add(b.settings.session)}
	b.sessions[token] = made
	c.identity.SessionId, c.identity.SessionExpireTime = made.id, timestamppb.New(made.expires)
	return &stokerv1.CreateSessionResponse{
		AccessToken: token, ExpireTime: timestamppb.New(made.expires), Identity: c.identity,
	}, nil
}

func (s sessionService) GetSession(ctx context.Context, _ *stokerv1.GetSessionRequest) (*stokerv1.GetSessionResponse, error) {
	b := s.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	c, failed := b.authenticate(ctx)
	if failed != nil {
		return nil, statusOf(*failed).Err()
	}
	return &stokerv1.GetSessionResponse{Identity: c.identity, ServerTime: timestamppb.New(b.now())}, nil
}

func (s sessionService) DeleteSession(ctx context.Context, _ *stokerv1.DeleteSessionRequest) (*stokerv1.DeleteSessionResponse, error) {
	b := s.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	c, failed := b.authenticate(ctx)
	if failed != nil {
		return nil, statusOf(*failed).Err()
	}
	if c.session == nil {
		return nil, statusOf(*refusal(client.ReasonLoginRequired, "an access token is needed")).Err()
	}
	c.session.ended = refusal(client.ReasonSessionEnded, "the session was ended")
	for open := range b.streams {
		if open.session == c.session {
			open.end(c.session.ended)
		}
	}
	return &stokerv1.DeleteSessionResponse{}, nil
}

type credentialService struct {
	stokerv1.UnsafeCredentialServiceServer
	broker *Broker
}

func (s credentialService) GetCredentials(ctx context.Context, in *stokerv1.GetCredentialsRequest) (*stokerv1.GetCredentialsResponse, error) {
	b := s.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, failed := b.authenticate(ctx); failed != nil {
		return nil, statusOf(*failed).Err()
	}
	names := in.GetGrants()
	if len(names) == 0 {
		names = slices.Sorted(maps.Keys(b.grants))
	}
	answer := &stokerv1.GetCredentialsResponse{}
	for _, name := range names {
		if problem := b.unavailable(name); problem != nil {
			return nil, statusOf(*problem).Err()
		}
		c := b.present(name)
		if c.Expires.Sub(b.now()) < in.GetMinLife().AsDuration() {
			c = b.issue(name, b.settings.lifetime)
		}
		answer.Credentials = append(answer.Credentials, toProto(c))
	}
	return answer, nil
}

func (s credentialService) ListGrants(ctx context.Context, _ *stokerv1.ListGrantsRequest) (*stokerv1.ListGrantsResponse, error) {
	b := s.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, failed := b.authenticate(ctx); failed != nil {
		return nil, statusOf(*failed).Err()
	}
	answer := &stokerv1.ListGrantsResponse{}
	for _, name := range slices.Sorted(maps.Keys(b.grants)) {
		answer.Grants = append(answer.Grants, &stokerv1.GrantSummary{
			Name: name, Target: toTarget(b.present(name)), Access: stokerv1.Access_ACCESS_BACKUP,
			Lifetime: durationpb.New(b.settings.lifetime),
		})
	}
	return answer, nil
}
