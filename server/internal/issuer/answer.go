package issuer

import (
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"

	"github.com/stokerd/stoker/server/internal/secret"
)

// clockSlack is how far STS's clock may be ahead of the broker's before an
// expiry counts as absurd. Signatures stop being accepted at 15 minutes.
const clockSlack = 5 * time.Minute

// Credential is one set of STS keys.
type Credential struct {
	AccessKeyID     string
	SecretAccessKey secret.String
	SessionToken    secret.String
	// IssuedAt is the broker's own time just before the call.
	IssuedAt time.Time
	// Expires is the end as STS gave it. It may be earlier than asked for.
	Expires time.Time
	// PackedPolicySize is how much of the space for policy and tags is used,
	// in percent. 0 means that STS did not say.
	PackedPolicySize int
}

// answer is what both calls have in common in their answers.
type answer struct {
	credentials *types.Credentials
	packed      int
}

// packedSize prefers the older field. AWS has deprecated it in favor of the
// session token's utilization; other STSs send the one, the other or neither.
func packedSize(packed, utilization *int32) int {
	if packed != nil {
		return int(*packed)
	}
	return int(aws.ToInt32(utilization))
}

// accept gives the answer's credential if it is one that can be released. An
// answer that fails here is transient: it says nothing about the request.
func (s *STS) accept(a answer, issued time.Time, asked time.Duration) (Credential, error) {
	if p := a.problem(issued, asked, time.Now()); p != "" {
		return Credential{}, &Error{
			Kind: Transient, Code: CodeGarbled, HTTPStatus: 200, Message: p,
			Account: s.account.Name, Operation: s.account.Method.Operation(),
		}
	}
	c := a.credentials
	return Credential{
		AccessKeyID:      *c.AccessKeyId,
		SecretAccessKey:  secret.New(*c.SecretAccessKey),
		SessionToken:     secret.New(*c.SessionToken),
		IssuedAt:         issued,
		Expires:          c.Expiration.UTC(),
		PackedPolicySize: a.packed,
	}, nil
}

// problem says why the answer cannot be released, or gives "". It repeats
// nothing of the keys.
func (a answer) problem(issued time.Time, asked time.Duration, now time.Time) string {
	c := a.credentials
	if c == nil {
		return "the answer has no credentials"
	}
	for _, field := range []struct {
		name  string
		value *string
	}{
		{"access key id", c.AccessKeyId},
		{"secret access key", c.SecretAccessKey},
		{"session token", c.SessionToken},
	} {
		if !plain(aws.ToString(field.value)) {
			return fmt.Sprintf("the answer's %s is empty or has characters that no key has", field.name)
		}
	}
	if c.Expiration == nil || c.Expiration.IsZero() {
		return "the answer has no expiry"
	}
	if a.packed < 0 || a.packed > 1000 {
		return fmt.Sprintf("the answer's packed policy size is %d %%", a.packed)
	}
	return expiryProblem(*c.Expiration, issued, asked, now)
}

// expiryProblem refuses credentials that are over before they arrive, and
// expiries that cannot come from the duration asked for. Renewal is planned by
// the expiry: a wrong one would leave an agent with dead keys.
func expiryProblem(expires, issued time.Time, asked time.Duration, now time.Time) string {
	if left := expires.Sub(now); left <= 0 {
		return fmt.Sprintf("the answer's credentials expired %s ago by this machine's clock: compare the clocks of broker and STS",
			(-left).Round(time.Second))
	}
	if over := expires.Sub(issued.Add(asked)); over > clockSlack {
		return fmt.Sprintf("the answer's credentials last %s longer than the %s asked for: compare the clocks of broker and STS",
			over.Round(time.Second), asked)
	}
	return ""
}

// plain says whether a key consists of printable ASCII without spaces. Keys
// are written into headers, environment variables and configuration files,
// where a line break would begin something else.
func plain(key string) bool {
	return key != "" && !strings.ContainsFunc(key, func(c rune) bool { return c <= ' ' || c > '~' })
}
