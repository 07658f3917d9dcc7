package issuer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/aws/smithy-go/logging"
)

// Issuer issues credentials.
type Issuer interface {
	// Issue makes one request to STS and gives its credential, or a *Error. It
	// makes a second one where STS did not know the broker's key and there is
	// another. It is safe for concurrent use. The credential is the caller's
	// alone: the issuer keeps no copy.
	Issue(context.Context, Request) (Credential, error)
}

// STS issues by one account's STS. It is safe for concurrent use.
type STS struct {
	account Account // with defaults
	client  *sts.Client
	keys    *aws.CredentialsCache
	http    boundedClient
}

var _ Issuer = (*STS)(nil)

// New checks the account and makes its issuer. It reads the SDK's shared
// configuration where the account gives no credentials of its own, but it
// calls nobody: Check does. The error joins everything that is wrong with the
// account.
func New(ctx context.Context, account Account) (*STS, error) {
	account = account.withDefaults()
	if err := account.Validate(); err != nil {
		return nil, err
	}
	cfg, err := account.config(ctx)
	if err != nil {
		return nil, err
	}
	if account.Over != nil {
		cfg.Credentials = account.Over(cfg.Credentials)
	}
	keys, cached := cfg.Credentials.(*aws.CredentialsCache)
	if !cached {
		keys = aws.NewCredentialsCache(cfg.Credentials)
	}
	transport := newHTTPClient(account.HTTPClient)
	return &STS{account: account, client: account.client(cfg, transport), keys: keys, http: transport}, nil
}

// Close lets go of idle connections to STS. Calls in flight are not touched,
// and a client that the account brought along stays as it is.
func (s *STS) Close() {
	if s.account.HTTPClient == nil {
		s.http.inner.CloseIdleConnections()
	}
}

// config finds the broker's own keys, and with them what the environment says
// about reaching AWS.
func (a Account) config(ctx context.Context) (aws.Config, error) {
	if a.Credentials != nil {
		return aws.Config{Region: a.Region, Credentials: a.Credentials}, nil
	}
	options := []func(*config.LoadOptions) error{config.WithRegion(a.Region)}
	if a.Profile != "" {
		options = append(options, config.WithSharedConfigProfile(a.Profile))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return aws.Config{}, fmt.Errorf("account %q: read the AWS configuration: %s", a.Name, keySourceText(err))
	}
	return cfg, nil
}

// client makes the STS client. It neither retries nor logs: the lease queue
// owns retries, and the SDK's logs would show session tokens.
func (a Account) client(cfg aws.Config, transport boundedClient) *sts.Client {
	return sts.NewFromConfig(cfg, func(o *sts.Options) {
		o.Region = a.Region
		o.Retryer = aws.NopRetryer{}
		o.RetryMaxAttempts = 0
		o.HTTPClient = transport
		o.AppID = "stoker"
		o.ClientLogMode = 0
		o.Logger = logging.Nop{}
		if a.Endpoint != "" {
			o.BaseEndpoint = aws.String(a.Endpoint)
		}
	})
}

// Format gives the account, as Account.Format does.
func (s *STS) Format(f fmt.State, verb rune) { s.account.Format(f, verb) }

// LogValue gives what Format does.
func (s *STS) LogValue() slog.Value { return s.account.LogValue() }

// Account gives the account with its defaults filled in.
func (s *STS) Account() Account { return s.account }

// Issue makes one request to STS, or two; see Issuer. It refuses a request outside the limits
// without a call, and an implausible answer after it. Every error is a *Error.
func (s *STS) Issue(ctx context.Context, r Request) (Credential, error) {
	operation := s.account.Method.Operation()
	if p := r.problem(s.account); p != "" {
		return Credential{}, &Error{
			Kind: Permanent, Code: CodeRefused, Message: p,
			Account: s.account.Name, Operation: operation,
		}
	}
	limited, cancel := context.WithTimeout(ctx, s.account.Timeout)
	defer cancel()
	own, failure := s.ownKeys(ctx, limited, operation)
	if failure != nil {
		return Credential{}, failure
	}
	// The wall clock alone counts: the time is recorded and sent to agents.
	issued := time.Now().UTC().Round(0)
	a, err := s.call(limited, own, r)
	if err != nil {
		failure := s.classify(ctx, operation, err, hiding(own))
		other, found := s.otherKeys(ctx, limited, failure.Code, own)
		if !found {
			return Credential{}, failure
		}
		issued = time.Now().UTC().Round(0)
		if a, err = s.call(limited, other, r); err != nil {
			failure := s.classify(ctx, operation, err, hiding(other))
			s.forgetKeys(failure.Code)
			return Credential{}, failure
		}
	}
	return s.accept(a, issued, r.Duration.Truncate(time.Second))
}

// ownKeys gets the broker's keys. They are fetched before the call, within the
// same time limit, so that a failure of their source is told from one of STS
// and so that the error's text can be searched for them.
func (s *STS) ownKeys(caller, limited context.Context, operation string) (aws.Credentials, *Error) {
	keys, err := s.keys.Retrieve(limited)
	if err == nil && keys.HasKeys() {
		return keys, nil
	}
	if err == nil {
		err = errors.New("their source gave empty ones")
	}
	failure := &Error{Account: s.account.Name, Operation: operation}
	if !failure.endedByContext(caller, limited.Err(), s.account.Timeout) {
		// Transient: an instance's metadata service or a credential process
		// may answer next time.
		failure.Kind, failure.Code = Transient, CodeNoKeys
	}
	failure.Message = "the broker's own AWS keys cannot be had: " + keySourceText(err)
	return aws.Credentials{}, failure
}

// otherKeys gives other keys than those that STS has just refused, if there are
// any: the account's key may be in rotation.
func (s *STS) otherKeys(caller, limited context.Context, code string, refused aws.Credentials) (aws.Credentials, bool) {
	s.forgetKeys(code)
	if s.account.Refused == nil || !unknownKey(code) {
		return aws.Credentials{}, false
	}
	s.account.Refused(limited, refused.AccessKeyID)
	s.keys.Invalidate()
	other, failure := s.ownKeys(caller, limited, s.account.Method.Operation())
	return other, failure == nil && other.AccessKeyID != refused.AccessKeyID
}

// unknownKey says whether STS does not know the key, or not any more.
func unknownKey(code string) bool {
	return code == "InvalidClientTokenId" || code == "InvalidAccessKeyId"
}

// ForgetKeys makes the next call ask the keys' source again.
func (s *STS) ForgetKeys() { s.keys.Invalidate() }

// forgetKeys makes the next call ask the keys' source again when STS says that
// these are no longer good, so that rotated keys are found.
func (s *STS) forgetKeys(code string) {
	switch code {
	case "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "InvalidAccessKeyId":
		s.keys.Invalidate()
	}
}

// call makes the request by the account's method, signed with these keys.
func (s *STS) call(ctx context.Context, own aws.Credentials, r Request) (answer, error) {
	seconds := aws.Int32(int32(r.Duration / time.Second))
	var tags []types.Tag
	for _, t := range r.Tags {
		tags = append(tags, types.Tag{Key: aws.String(t.Key), Value: aws.String(t.Value)})
	}
	if s.account.Method == FederationToken {
		out, err := s.client.GetFederationToken(ctx, &sts.GetFederationTokenInput{
			Name:            aws.String(r.SessionName),
			Policy:          aws.String(r.Policy),
			DurationSeconds: seconds,
			Tags:            tags,
		}, signedWith(own))
		if err != nil {
			return answer{}, err
		}
		return answer{out.Credentials, packedSize(out.PackedPolicySize, out.SessionTokenUtilization)}, nil //nolint:staticcheck // see packedSize
	}
	in := &sts.AssumeRoleInput{
		RoleArn:         aws.String(s.account.RoleARN),
		RoleSessionName: aws.String(r.SessionName),
		Policy:          aws.String(r.Policy),
		DurationSeconds: seconds,
		Tags:            tags,
	}
	if s.account.ExternalID != "" {
		in.ExternalId = aws.String(s.account.ExternalID)
	}
	out, err := s.client.AssumeRole(ctx, in, signedWith(own))
	if err != nil {
		return answer{}, err
	}
	return answer{out.Credentials, packedSize(out.PackedPolicySize, out.SessionTokenUtilization)}, nil //nolint:staticcheck // see packedSize
}

func signedWith(own aws.Credentials) func(*sts.Options) {
	return func(o *sts.Options) {
		o.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return own, nil
		})
	}
}
