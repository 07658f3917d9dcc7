package client

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

// GrantSummary is what an agent may know of a grant.
type GrantSummary struct {
	Name   string `json:"name"`
	Target Target `json:"target"`
	// Access is as in Credential.
	Access string `json:"access"`
	// Lifetime is how long each credential lives.
	Lifetime time.Duration `json:"-"`
}

// Fetch asks a broker once for the credentials of Config.Grants, or of all of
// the user's, and keeps no connection. It costs the broker a password check each
// time, unless Config.Delegation is set: whatever runs for longer wants a Source. minLife is the least life that
// each must have left; 0: a third of a full one. The error is an *Error, or says
// what is wrong with the configuration.
func Fetch(ctx context.Context, config Config, minLife time.Duration) ([]Credential, error) {
	request := &stokerv1.GetCredentialsRequest{Grants: config.Grants}
	if minLife > 0 {
		request.MinLife = durationpb.New(minLife)
	}
	var fetched []Credential
	err := once(ctx, config, func(ctx context.Context, l *link) error {
		given, err := fetch(ctx, l, config.Delegation, request)
		if err != nil {
			return err
		}
		fetched = nil
		for _, p := range given {
			c, err := fromCredential(p)
			if err != nil {
				return &Error{Transient: true, Message: "the broker sent an unusable credential: " + err.Error()}
			}
			fetched = append(fetched, c)
		}
		return nil
	})
	return fetched, err
}

func fetch(ctx context.Context, l *link, d *Delegation, request *stokerv1.GetCredentialsRequest) ([]*stokerv1.Credential, error) {
	if d != nil {
		return d.issue(ctx, l, request.GetMinLife())
	}
	answer, err := l.credentials().GetCredentials(ctx, request)
	return answer.GetCredentials(), err
}

// WhoAmI asks a broker who it takes the caller for. serverTime is the broker's
// clock.
func WhoAmI(ctx context.Context, config Config) (identity Identity, serverTime time.Time, err error) {
	err = once(ctx, config, func(ctx context.Context, l *link) error {
		answer, err := l.sessions().GetSession(ctx, &stokerv1.GetSessionRequest{})
		if err != nil {
			return err
		}
		identity, serverTime = fromIdentity(answer.GetIdentity()), answer.GetServerTime().AsTime()
		return nil
	})
	return identity, serverTime, err
}

// ListGrants asks a broker which grants the user has, by name.
func ListGrants(ctx context.Context, config Config) ([]GrantSummary, error) {
	var grants []GrantSummary
	err := once(ctx, config, func(ctx context.Context, l *link) error {
		answer, err := l.credentials().ListGrants(ctx, &stokerv1.ListGrantsRequest{})
		if err != nil {
			return err
		}
		grants = nil
		for _, p := range answer.GetGrants() {
			grants = append(grants, GrantSummary{
				Name: printable(p.GetName()), Target: fromTarget(p.GetTarget()),
				Access: accessName(p.GetAccess()), Lifetime: p.GetLifetime().AsDuration(),
			})
		}
		return nil
	})
	return grants, err
}

// once makes one call at the first broker that answers, with the password
// itself as authorization where there is one.
func once(ctx context.Context, config Config, call func(context.Context, *link) error) error {
	config, err := config.complete()
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if config.Delegation == nil {
		basic, err := config.basic(ctx)
		if err != nil {
			return err
		}
		ctx = authorized(ctx, basic)
	}
	var failed *Error
	for _, broker := range config.Brokers {
		failed = config.callOnce(ctx, broker, call)
		if failed == nil {
			return nil
		}
		if ctx.Err() != nil || failed.Reason != "" && !failed.Transient {
			break
		}
	}
	return failed
}

func (c Config) callOnce(ctx context.Context, broker string, call func(context.Context, *link) error) *Error {
	l, err := c.dial(broker)
	if err != nil {
		return asError(err)
	}
	defer l.close()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err = call(ctx, l)
	if err == nil {
		return nil
	}
	if own := asError(err); own != nil {
		return own
	}
	return l.explain(ctx, err)
}
