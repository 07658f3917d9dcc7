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
	const operation = "GetCallerIdentity"
	limited, cancel := context.WithTimeout(ctx, s.account.Timeout)
	defer cancel()
	own, failure := s.ownKeys(ctx, limited, operation)
	if failure != nil {
		return "", failure
	}
	identity, err := s.client.GetCallerIdentity(limited, &sts.GetCallerIdentityInput{}, signedWith(own))
	if err != nil {
		failure := s.classify(ctx, operation, err, hiding(own))
		s.forgetKeys(failure.Code)
		return "", failure
	}
	return aws.ToString(identity.Arn), nil
}
