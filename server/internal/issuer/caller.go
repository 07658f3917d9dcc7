package issuer

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// Keys are the broker's own keys of the account, for other services of AWS.
// What reads them shares the cache with Issue.
func (s *STS) Keys() aws.CredentialsProvider { return s.keys }

// Caller asks STS whose the broker's own keys are, and gives the ARN. Every
// error is a *Error.
func (s *STS) Caller(ctx context.Context) (string, error) {
	limited, cancel := context.WithTimeout(ctx, s.account.Timeout)
	defer cancel()
	own, failure := s.ownKeys(ctx, limited, "GetCallerIdentity")
	if failure != nil {
		return "", failure
	}
	return s.callerOf(ctx, limited, own)
}

// CallerOf is Caller for keys that the account does not use, or not yet.
func (s *STS) CallerOf(ctx context.Context, keys aws.Credentials) (string, error) {
	limited, cancel := context.WithTimeout(ctx, s.account.Timeout)
	defer cancel()
	return s.callerOf(ctx, limited, keys)
}

func (s *STS) callerOf(ctx, limited context.Context, own aws.Credentials) (string, error) {
	identity, err := s.client.GetCallerIdentity(limited, &sts.GetCallerIdentityInput{}, signedWith(own))
	if err != nil {
		failure := s.classify(ctx, "GetCallerIdentity", err, hiding(own))
		s.forgetKeys(failure.Code)
		return "", failure
	}
	return aws.ToString(identity.Arn), nil
}
