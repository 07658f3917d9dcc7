package issuer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
)

// Method is how an account asks for credentials.
type Method string

const (
	// AssumeRole takes the session of a role. The caller may be an IAM user or
	// a role; a role as caller is role chaining, which STS limits to one hour.
	AssumeRole Method = "assume_role"
	// FederationToken takes the session of a federated user. The caller must
	// be an IAM user with its long-term key.
	FederationToken Method = "federation_token"
)

// Limits and defaults of an account. The lifetimes are those of the STS API
// reference for AssumeRole and GetFederationToken.
const (
	// DefaultLifetime is the MaxLifetime of an account that sets none.
	DefaultLifetime = time.Hour
	// DefaultMinLifetime is the shortest lifetime that AWS issues.
	DefaultMinLifetime = 900 * time.Second
	// DefaultTimeout bounds one call where the account sets no Timeout.
	DefaultTimeout = 10 * time.Second
	// ChainedLifetime is the longest session that a role can take of a role,
	// and the longest federated session of an account's root user.
	ChainedLifetime = time.Hour
	// PlaceholderRoleARN is sent where the account names an Endpoint and no
	// role. MinIO and its like ignore the role, but the protocol requires one.
	PlaceholderRoleARN = "arn:aws:iam::000000000000:role/stoker"

	maxRoleLifetime       = 43_200 * time.Second
	maxFederationLifetime = 129_600 * time.Second
	maxTimeout            = 2 * time.Minute
	defaultEndpointRegion = "us-east-1"
)

var (
	regionPattern     = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$`)
	externalIDPattern = regexp.MustCompile(`^[A-Za-z0-9_+=,.@:/-]+$`)
)

// Account is how to reach one STS. It comes from configuration.
type Account struct {
	// Name is the account's name in configuration. Errors and findings carry it.
	Name string
	// Region signs the calls and, without an Endpoint, chooses the regional
	// STS. Required, except with an Endpoint, where it defaults to us-east-1.
	Region string
	// Endpoint is the base URL of another STS than the region's. It applies to
	// the issuing calls alone, not to those with which the SDK finds the
	// broker's own keys.
	Endpoint string
	// Profile names the shared-configuration profile that holds the broker's
	// keys. Empty means the SDK's default chain. It excludes Credentials.
	Profile string
	// RoleARN is the role to assume. Required for AssumeRole, except with an
	// Endpoint, where it defaults to PlaceholderRoleARN.
	RoleARN string
	// ExternalID is passed with AssumeRole where it is set: 2 to 1,224
	// characters of letters, digits and _+=,.@:/-.
	ExternalID string
	// Method is AssumeRole or FederationToken. Required.
	Method Method
	// MaxLifetime is the longest credential that the account issues, in whole
	// seconds. Zero means DefaultLifetime; at most 12 hours for AssumeRole and
	// 36 hours for FederationToken.
	MaxLifetime time.Duration
	// MinLifetime is the shortest. Zero means DefaultMinLifetime. A lower one
	// needs an Endpoint whose STS agrees to it.
	MinLifetime time.Duration
	// RatePerSecond is the account's budget of STS calls. This package only
	// checks that it is a number; the lease queue keeps to it. Zero leaves the
	// choice to the queue.
	RatePerSecond float64
	// Timeout bounds one call, finding the broker's own keys included. Zero
	// means DefaultTimeout; at most two minutes.
	Timeout time.Duration
	// Credentials are the broker's own keys. Nil means those of Profile or of
	// the SDK's default chain. With Credentials set, neither the environment
	// nor the shared configuration is read.
	Credentials aws.CredentialsProvider `json:"-"`
	// Over puts another provider over the one that has been found, such as one
	// that follows a rotation. Nil leaves it as it is.
	Over func(aws.CredentialsProvider) aws.CredentialsProvider `json:"-"`
	// Refused is told of a key of the broker's that STS does not know. If the
	// provider then gives another one, that is tried within the same call. May
	// be nil.
	Refused func(ctx context.Context, accessKeyID string) `json:"-"`
	// HTTPClient carries the issuing calls. Nil means one of the package's own,
	// with time limits on every step and without redirects. The size of an
	// answer is bounded in either case.
	HTTPClient *http.Client `json:"-"`
}

// Format gives the account's name, method and region for every verb: a
// provider of fixed keys would print them.
func (a Account) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "account %q (%s in %s)", a.Name, a.Method, a.Region)
}

// LogValue gives what Format does.
func (a Account) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(a)) }

// Validate says everything that is wrong with the account, one error a
// problem, joined. Defaults count as filled in.
func (a Account) Validate() error {
	a = a.withDefaults()
	var problems []error
	report := func(field, format string, args ...any) {
		problems = append(problems, fmt.Errorf("account %q: %s: %s", a.Name, field, fmt.Sprintf(format, args...)))
	}
	if a.Name == "" {
		report("name", "is empty: give the account a name")
	}
	if !regionPattern.MatchString(a.Region) {
		report("region", "%q is not a region name: set one such as eu-central-1", a.Region)
	}
	if problem := endpointProblem(a.Endpoint); problem != "" {
		report("endpoint", "%s", problem)
	}
	if a.Profile != "" && a.Credentials != nil {
		report("profile", "%q excludes explicit credentials: give one of them", a.Profile)
	}
	if a.RatePerSecond < 0 || math.IsNaN(a.RatePerSecond) || math.IsInf(a.RatePerSecond, 0) {
		report("rate per second", "%v is not a rate: set a number above 0, or 0 for the default", a.RatePerSecond)
	}
	if a.Timeout < 0 || a.Timeout > maxTimeout {
		report("timeout", "%s is out of bounds: set at most %s", a.Timeout, maxTimeout)
	}
	a.validateMethod(report)
	return errors.Join(problems...)
}

// validateMethod reports what depends on the method: the lifetimes, the role
// and the external id.
func (a Account) validateMethod(report func(field, format string, args ...any)) {
	switch a.Method {
	case AssumeRole:
		if problem := roleProblem(a.RoleARN, a.Endpoint != ""); problem != "" {
			report("role ARN", "%s", problem)
		}
		if n := len(a.ExternalID); n != 0 && (n < 2 || n > 1224 || !externalIDPattern.MatchString(a.ExternalID)) {
			report("external id", "must be 2 to 1224 characters of letters, digits and _+=,.@:/-")
		}
	case FederationToken:
		if a.RoleARN != "" {
			report("role ARN", "has no use with method %s: remove it, or set method %s", FederationToken, AssumeRole)
		}
		if a.ExternalID != "" {
			report("external id", "has no use with method %s: remove it, or set method %s", FederationToken, AssumeRole)
		}
	default:
		report("method", "%q is unknown: set %s or %s", a.Method, AssumeRole, FederationToken)
		return
	}
	a.validateLifetimes(report)
}

// validateLifetimes reports lifetimes that the method's call would refuse.
func (a Account) validateLifetimes(report func(field, format string, args ...any)) {
	highest := a.Method.maxLifetime()
	for _, l := range []struct {
		field string
		value time.Duration
	}{{"max lifetime", a.MaxLifetime}, {"min lifetime", a.MinLifetime}} {
		switch {
		case l.value < time.Second:
			report(l.field, "%s is too short: set at least 1s", l.value)
		case l.value%time.Second != 0:
			report(l.field, "%s is not in whole seconds, as STS wants it", l.value)
		case l.value > highest:
			report(l.field, "%s is over the %s that STS allows for method %s", l.value, highest, a.Method)
		}
	}
	if a.MinLifetime < DefaultMinLifetime && a.Endpoint == "" {
		report("min lifetime", "%s is under the %s of AWS: raise it, or name an endpoint that allows it", a.MinLifetime, DefaultMinLifetime)
	}
	if a.MaxLifetime < a.MinLifetime {
		report("max lifetime", "%s is under the shortest lifetime %s", a.MaxLifetime, a.MinLifetime)
	}
}

// maxLifetime is the longest session that STS issues by the method.
func (m Method) maxLifetime() time.Duration {
	if m == FederationToken {
		return maxFederationLifetime
	}
	return maxRoleLifetime
}

// Operation is the STS call behind the method.
func (m Method) Operation() string {
	if m == FederationToken {
		return "GetFederationToken"
	}
	return "AssumeRole"
}

// MaxNameChars is the longest session name that the method takes.
func (m Method) MaxNameChars() int {
	if m == FederationToken {
		return MaxFederatedNameChars
	}
	return MaxRoleSessionNameChars
}

func (a Account) withDefaults() Account {
	if a.MaxLifetime == 0 {
		a.MaxLifetime = DefaultLifetime
	}
	if a.MinLifetime == 0 {
		a.MinLifetime = DefaultMinLifetime
	}
	if a.Timeout == 0 {
		a.Timeout = DefaultTimeout
	}
	if a.Endpoint != "" {
		if a.Region == "" {
			a.Region = defaultEndpointRegion
		}
		if a.RoleARN == "" && a.Method == AssumeRole {
			a.RoleARN = PlaceholderRoleARN
		}
	}
	return a
}

// endpointProblem says why the endpoint cannot be a base URL. A URL with a
// password in it is refused because URLs end up in logs.
func endpointProblem(endpoint string) string {
	if endpoint == "" {
		return ""
	}
	u, err := url.Parse(endpoint)
	switch {
	case err != nil:
		// The parser's error repeats the URL, and with it a password in it.
		return "is not a URL"
	case u.Scheme != "https" && u.Scheme != "http":
		return "must start with https:// (or http://)"
	case u.User != nil:
		return "must not contain a user or password"
	case u.Hostname() == "":
		return "has no host"
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "must not contain ? or #"
	}
	return ""
}

// roleProblem says why the ARN cannot be a role's. Another STS than AWS's may
// have ARNs of its own shape, so there only the API's length limits hold.
func roleProblem(role string, anySTS bool) string {
	if role == "" {
		return "is empty: name the role to assume"
	}
	if n := utf8.RuneCountInString(role); n < 20 || n > 2048 {
		return fmt.Sprintf("has %d characters, not 20 to 2048", n)
	}
	if anySTS {
		return ""
	}
	parsed, err := arn.Parse(role)
	if err != nil || parsed.Service != "iam" || !strings.HasPrefix(parsed.Resource, "role/") {
		return fmt.Sprintf("%q is not a role's ARN such as arn:aws:iam::123456789012:role/name", role)
	}
	return ""
}

// clearText says whether the endpoint's answers, and the issued keys in them,
// would cross a network unencrypted.
func clearText(endpoint string) bool {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" {
		return false
	}
	if u.Hostname() == "localhost" {
		return false
	}
	addr, err := netip.ParseAddr(u.Hostname())
	return err != nil || !addr.IsLoopback()
}
