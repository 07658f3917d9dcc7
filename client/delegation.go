package client

import (
	"context"
	"errors"
	"fmt"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

// longestReason is what the broker keeps of a delegation's reason, in
// characters.
const longestReason = 256

// Delegation is what an internal service of the provider asks for: credentials
// under a tenant's grant, by a rule of the broker's configuration.
type Delegation struct {
	// Tenant is the tenant's name, Grant that of one of its grants.
	Tenant, Grant string
	// Reason says what for: 1 to 256 printable characters. The audit trail has
	// it with each credential, and the name of the STS session, which CloudTrail
	// shows, begins with as much of it as fits: begin with the ticket.
	Reason string
}

// delegate takes the delegation over into a configuration, and says what does
// not go with it.
func (c *Config) delegate() (problems []error) {
	complain := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	d := *c.Delegation
	c.Delegation = &d
	if c.Login != "" || c.Password != nil {
		complain("delegation: a service has no login: leave login and password out")
	}
	if len(c.Grants) > 0 {
		complain("delegation: name the grant in it, and no others")
	}
	if c.Renew {
		complain("delegation: a service's certificate is not renewed from here: replace its files")
	}
	if !grantName.MatchString(d.Tenant) {
		complain("delegation: tenant %q: it is no tenant's name", printable(d.Tenant))
	}
	if n := utf8.RuneCountInString(d.Reason); n == 0 || n > longestReason || d.Reason != printable(d.Reason) {
		complain("delegation: the reason has 1 to %d printable characters", longestReason)
	}
	c.Grants = []string{d.Grant}
	return problems
}

// wire is a stream of credentials as the source speaks it.
type wire interface {
	Send(*stokerv1.StreamCredentialsRequest) error
	Recv() (*stokerv1.StreamCredentialsResponse, error)
}

// open opens a stream: an agent's with its access token, or a service's.
func (c Config) open(ctx context.Context, l *link, token string) (wire, error) {
	if c.Delegation == nil {
		return l.credentials().StreamCredentials(authorized(ctx, "Bearer "+token))
	}
	stream, err := l.delegations().StreamCredentials(ctx)
	if err != nil {
		return nil, err
	}
	return delegated{*c.Delegation, stream}, nil
}

// delegated is a service's stream in the words of an agent's.
type delegated struct {
	Delegation
	stream stokerv1.DelegationService_StreamCredentialsClient
}

// Send implements wire.
func (d delegated) Send(m *stokerv1.StreamCredentialsRequest) error {
	out := &stokerv1.DelegationServiceStreamCredentialsRequest{}
	switch m := m.GetMessage().(type) {
	case *stokerv1.StreamCredentialsRequest_Subscribe:
		delegate := &stokerv1.Delegate{Tenant: d.Tenant, Grant: d.Grant, Reason: d.Reason, Client: m.Subscribe.GetClient()}
		if held := m.Subscribe.GetHeld(); len(held) > 0 {
			delegate.Held = held[0] // there is one grant
		}
		out.Message = &stokerv1.DelegationServiceStreamCredentialsRequest_Delegate{Delegate: delegate}
	case *stokerv1.StreamCredentialsRequest_Acknowledge:
		out.Message = &stokerv1.DelegationServiceStreamCredentialsRequest_Acknowledge{Acknowledge: m.Acknowledge}
	case *stokerv1.StreamCredentialsRequest_ReportRefused:
		out.Message = &stokerv1.DelegationServiceStreamCredentialsRequest_ReportRefused{ReportRefused: m.ReportRefused}
	default:
		return errors.New("a service's stream has no such message")
	}
	return d.stream.Send(out)
}

// Recv implements wire.
func (d delegated) Recv() (*stokerv1.StreamCredentialsResponse, error) {
	in, err := d.stream.Recv()
	if err != nil {
		return nil, err
	}
	out := &stokerv1.StreamCredentialsResponse{}
	switch m := in.GetMessage().(type) {
	case *stokerv1.DelegationServiceStreamCredentialsResponse_Welcome:
		out.Message = &stokerv1.StreamCredentialsResponse_Welcome{Welcome: m.Welcome}
	case *stokerv1.DelegationServiceStreamCredentialsResponse_Credential:
		out.Message = &stokerv1.StreamCredentialsResponse_Credential{Credential: m.Credential}
	case *stokerv1.DelegationServiceStreamCredentialsResponse_Problem:
		out.Message = &stokerv1.StreamCredentialsResponse_Problem{Problem: m.Problem}
	case *stokerv1.DelegationServiceStreamCredentialsResponse_Revocation:
		out.Message = &stokerv1.StreamCredentialsResponse_Revocation{Revocation: m.Revocation}
	case *stokerv1.DelegationServiceStreamCredentialsResponse_Reconnect:
		out.Message = &stokerv1.StreamCredentialsResponse_Reconnect{Reconnect: m.Reconnect}
	case *stokerv1.DelegationServiceStreamCredentialsResponse_Heartbeat:
		out.Message = &stokerv1.StreamCredentialsResponse_Heartbeat{Heartbeat: m.Heartbeat}
	}
	return out, nil
}

// issue asks for one credential of a service's.
func (d Delegation) issue(ctx context.Context, l *link, minLife *durationpb.Duration) ([]*stokerv1.Credential, error) {
	answer, err := l.delegations().IssueCredentials(ctx, &stokerv1.IssueCredentialsRequest{
		Tenant: d.Tenant, Grant: d.Grant, Reason: d.Reason, MinLife: minLife,
	})
	if err != nil {
		return nil, err
	}
	return []*stokerv1.Credential{answer.GetCredential()}, nil
}
