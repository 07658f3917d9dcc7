package client

import (
	"context"
	"errors"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// sdkAge is for how long the SDK may keep what a provider gave it.
const sdkAge = time.Minute

// CredentialsProvider gives a grant's credentials to aws-sdk-go-v2. An empty
// grant means the only one. Pass it as it is, or let the SDK wrap it in a
// CredentialsCache; both work.
//
// Retrieve waits for the first credential until its context ends or the broker
// refuses for good; after that it answers from memory. It never gives out a
// credential that has expired or was revoked: the SDK call then fails with the
// broker's reason.
//
// Expires in its answer is when to ask again, at most a minute ahead and never
// after the true end, which Credential.Expires has. A CredentialsCache asks for
// nothing before that time: with the true end there, it would sign with keys to
// their last second, and with revoked ones until then.
func (s *Source) CredentialsProvider(grant string) aws.CredentialsProvider {
	return provider{source: s, grant: grant}
}

type provider struct {
	source *Source
	grant  string
}

// Retrieve implements aws.CredentialsProvider.
func (p provider) Retrieve(ctx context.Context) (aws.Credentials, error) {
	c, err := p.source.Credential(p.grant)
	if errors.Is(err, ErrNoCredentialYet) {
		if err := p.source.Wait(ctx, p.names()...); err != nil {
			return aws.Credentials{}, err
		}
		c, err = p.source.Credential(p.grant)
	}
	if err != nil {
		return aws.Credentials{}, err
	}
	again := time.Now().Add(sdkAge)
	if again.After(c.Expires) {
		again = c.Expires
	}
	return aws.Credentials{
		AccessKeyID:     c.AccessKeyID,
		SecretAccessKey: c.SecretAccessKey,
		SessionToken:    c.SessionToken,
		Source:          "Stoker",
		CanExpire:       true,
		Expires:         again,
	}, nil
}

func (p provider) names() []string {
	if p.grant == "" {
		return nil
	}
	return []string{p.grant}
}
