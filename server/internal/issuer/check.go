package issuer

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// Severity says what a finding of Check means for the broker.
type Severity string

const (
	// Fatal: no credential can be issued until somebody changes something.
	Fatal Severity = "fatal"
	// Warning: it looks wrong, or could not be found out now.
	Warning Severity = "warning"
	// Note: worth knowing, nothing to do.
	Note Severity = "note"
)

// Finding is one thing that Check found, in one line that names the account
// and says what to do.
type Finding struct {
	Severity Severity
	Message  string
}

// String gives the finding as a line of a start-up report.
func (f Finding) String() string { return string(f.Severity) + ": " + f.Message }

// maxSkew is the difference of the clocks that Check lets pass. At 15 minutes
// STS refuses signatures, and at clockSlack answers count as garbled.
const maxSkew = 30 * time.Second

// Check finds out, with one GetCallerIdentity, whether the broker's keys can
// work with the account's method. It issues nothing. An STS that cannot be
// reached is a warning, because the broker must start while STS is down. The
// error is the context's alone.
func (s *STS) Check(ctx context.Context) ([]Finding, error) {
	c := &check{account: s.account}
	if clearText(s.account.Endpoint) {
		c.warn("the endpoint %s is not encrypted: issued credentials cross the network in the clear", s.account.Endpoint)
	}
	limited, cancel := context.WithTimeout(ctx, s.account.Timeout)
	defer cancel()
	own, failure := s.ownKeys(ctx, limited, "GetCallerIdentity")
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if failure != nil {
		c.keysMissing(failure)
		return c.findings, nil
	}
	c.method(own)
	identity, err := s.client.GetCallerIdentity(limited, &sts.GetCallerIdentityInput{}, signedWith(own))
	switch {
	case err == nil:
		c.caller(aws.ToString(identity.Arn))
		skew, _ := awsmiddleware.GetAttemptSkew(identity.ResultMetadata)
		c.clocks(skew)
	case ctx.Err() != nil:
		return nil, ctx.Err()
	default:
		failure := s.classify(ctx, "GetCallerIdentity", err, hiding(own))
		s.forgetKeys(failure.Code)
		c.unanswered(own, failure)
	}
	return c.findings, nil
}

// check gathers the findings about one account.
type check struct {
	account  Account
	findings []Finding
}

func (c *check) add(s Severity, format string, args ...any) {
	c.findings = append(c.findings, Finding{s, fmt.Sprintf("account %q: ", c.account.Name) + fmt.Sprintf(format, args...)})
}

func (c *check) fatal(format string, args ...any) { c.add(Fatal, format, args...) }
func (c *check) warn(format string, args ...any)  { c.add(Warning, format, args...) }
func (c *check) note(format string, args ...any)  { c.add(Note, format, args...) }

func (c *check) keysMissing(failure *Error) {
	if failure.Code == CodeTimeout {
		c.warn("%s (no answer within %s; the broker goes on trying)", failure.Message, c.account.Timeout)
		return
	}
	c.fatal("%s: set a profile, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where the SDK's default chain finds keys", failure.Message)
}

// method reports what the keys alone show, without asking anybody.
func (c *check) method(own aws.Credentials) {
	if c.account.Method == FederationToken && temporary(own) {
		c.fatal("method %s needs an IAM user's long-term key, but the key %s is temporary: give the account a user's key, or use method %s",
			FederationToken, own.AccessKeyID, AssumeRole)
	}
}

// caller reports what the identity behind the keys means for the method.
func (c *check) caller(identity string) {
	parsed, err := arn.Parse(identity)
	if err != nil {
		c.note("STS names the caller %s, which is not an AWS identity: what the keys may do shows at the first issue",
			scrubber{}.line(identity, 128))
		return
	}
	c.note("calls STS as %s by method %s", identity, c.account.Method)
	kind, _, _ := strings.Cut(parsed.Resource, "/")
	switch kind {
	case "root":
		c.root()
	case "assumed-role":
		c.chained(identity)
	case "federated-user":
		if c.account.Method == AssumeRole {
			c.fatal("%s is a federated user's session, which may call nothing of STS but GetCallerIdentity: use an IAM user's key or a role", identity)
		}
	}
	if role, err := arn.Parse(c.account.RoleARN); err == nil && role.AccountID != parsed.AccountID && c.account.RoleARN != PlaceholderRoleARN {
		c.note("the role is in AWS account %s, the keys are in %s: the role's trust policy must name the latter", role.AccountID, parsed.AccountID)
	}
}

func (c *check) root() {
	if c.account.Method == AssumeRole {
		c.fatal("the keys are the AWS account's root user's, which cannot assume a role: make an IAM user for the broker")
		return
	}
	c.warn("the keys are the AWS account's root user's, and can do everything: make an IAM user for the broker")
	if c.account.MaxLifetime > ChainedLifetime {
		c.warn("STS cuts federated sessions of the root user to %s, and the longest lifetime is %s", ChainedLifetime, c.account.MaxLifetime)
	}
}

func (c *check) chained(identity string) {
	if c.account.Method == AssumeRole && c.account.MaxLifetime > ChainedLifetime {
		c.fatal("%s is a role's session, so assuming a role is role chaining, which STS refuses over %s: lower the max lifetime from %s, or use an IAM user's key",
			identity, ChainedLifetime, c.account.MaxLifetime)
	}
}

// clocks reports a clock that will make trouble before STS refuses signatures.
func (c *check) clocks(skew time.Duration) {
	if skew.Abs() > maxSkew {
		c.warn("this machine's clock differs from STS's by %s: set it right, lifetimes depend on it", skew.Round(time.Second).Abs())
	}
}

// unanswered reports a GetCallerIdentity that brought no identity.
func (c *check) unanswered(own aws.Credentials, failure *Error) {
	switch {
	case c.account.Endpoint != "" && notImplemented(failure):
		c.note("this STS has no GetCallerIdentity (%s): its keys are not checked before the first issue", failure.Code)
		return
	case failure.Kind == Permanent:
		c.refused(own, failure)
		return
	}
	c.warn("the keys could not be checked, and the broker goes on trying: %s", failure)
	if c.account.Method == AssumeRole && temporary(own) && c.account.MaxLifetime > ChainedLifetime {
		c.warn("the key %s is temporary: if it is a role's, STS refuses lifetimes over %s, and the longest here is %s",
			own.AccessKeyID, ChainedLifetime, c.account.MaxLifetime)
	}
}

// refused reports an STS that knows why it does not want these keys.
func (c *check) refused(own aws.Credentials, failure *Error) {
	switch failure.Code {
	case "InvalidClientTokenId", "InvalidAccessKeyId":
		c.fatal("STS does not know the key %s, or it was disabled or deleted: give the account a valid one (%s)", own.AccessKeyID, failure.Code)
	case "SignatureDoesNotMatch":
		c.fatal("the secret does not belong to the key %s: give the account the right one (%s)", own.AccessKeyID, failure.Code)
	case "RegionDisabledException":
		c.fatal("STS is not activated in %s for this AWS account: activate it, or use another region (%s)", c.account.Region, failure.Code)
	default:
		c.fatal("STS refuses the key %s: %s", own.AccessKeyID, failure)
	}
}

// notImplemented says whether the refusal is of the call and not of the keys.
// MinIO answers InvalidParameterValue; others have codes or a status for it.
func notImplemented(failure *Error) bool {
	switch failure.Code {
	case "InvalidAction", "InvalidParameterValue", "NotImplemented", "UnsupportedOperation",
		"UnknownOperation", "UnknownOperationException", "MethodNotAllowed":
		return true
	}
	switch failure.HTTPStatus {
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return true
	}
	return false
}
