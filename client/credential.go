package client

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

// redacted stands where a secret would.
const redacted = "REDACTED"

// Credential is one set of temporary AWS keys. Printing, logging or encoding it
// as JSON shows everything but the secret key and the session token; who needs
// those reads the fields.
type Credential struct {
	// ID names the credential at the broker.
	ID string
	// Grant is the name of the grant that it was issued for.
	Grant string
	// AccessKeyID is no secret; S3's access logs and CloudTrail show it.
	AccessKeyID string
	// SecretAccessKey is secret.
	SecretAccessKey string
	// SessionToken is secret. Its length is not fixed.
	SessionToken string
	// Issued is when, by the broker's clock.
	Issued time.Time
	// Expires is when S3 stops accepting it, by this machine's clock: where
	// that clock and the broker's are more than a minute apart, the difference
	// is already taken out.
	Expires time.Time
	// Target is where it leads.
	Target Target
	// Access is "backup", "restore", "maintain" or "actions".
	Access string
}

// Target is where a credential leads.
type Target struct {
	Bucket string `json:"bucket"`
	// Prefix ends in "/". All keys must start with it.
	Prefix string `json:"prefix"`
	// Region is the bucket's, such as "eu-central-1".
	Region string `json:"region"`
	// Endpoint is the URL of the S3 service. Empty: AWS.
	Endpoint string `json:"endpoint,omitempty"`
	// KMSKeyARN is the key to encrypt with. Empty: none.
	KMSKeyARN string `json:"kms_key_arn,omitempty"`
}

// String gives the target as a URL: "s3://bucket/prefix/".
func (t Target) String() string { return "s3://" + t.Bucket + "/" + t.Prefix }

// String describes the credential without its secrets.
func (c Credential) String() string {
	return fmt.Sprintf("%s %s until %s for %s (%s)",
		c.Grant, c.AccessKeyID, c.Expires.UTC().Format(time.RFC3339), c.Target, c.Access)
}

// GoString is String, so that %#v shows no secret.
func (c Credential) GoString() string { return "client.Credential{" + c.String() + "}" }

// Format prints String for every verb.
func (c Credential) Format(f fmt.State, verb rune) {
	text := c.String()
	if verb == 'v' && f.Flag('#') {
		text = c.GoString()
	}
	// A failing writer is the business of whoever prints.
	_, _ = io.WriteString(f, text)
}

// LogValue gives the attributes that may be logged.
func (c Credential) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("grant", c.Grant),
		slog.String("credential_id", c.ID),
		slog.String("access_key_id", c.AccessKeyID),
		slog.Time("expires", c.Expires),
		slog.String("target", c.Target.String()),
		slog.String("access", c.Access),
	)
}

// MarshalJSON encodes all but the secrets, in whose place it says REDACTED.
func (c Credential) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		ID              string    `json:"id"`
		Grant           string    `json:"grant"`
		AccessKeyID     string    `json:"access_key_id"`
		SecretAccessKey string    `json:"secret_access_key"`
		SessionToken    string    `json:"session_token"`
		Issued          time.Time `json:"issued"`
		Expires         time.Time `json:"expires"`
		Target          Target    `json:"target"`
		Access          string    `json:"access"`
	}{c.ID, c.Grant, c.AccessKeyID, redacted, redacted, c.Issued, c.Expires, c.Target, c.Access})
}

// fromCredential checks a credential and translates it. One that is not whole
// is refused here, so that it can never take the place of a good one.
func fromCredential(p *stokerv1.Credential) (Credential, error) {
	c := Credential{
		ID:              p.GetId(),
		Grant:           p.GetGrant(),
		AccessKeyID:     p.GetAccessKeyId(),
		SecretAccessKey: p.GetSecretAccessKey(),
		SessionToken:    p.GetSessionToken(),
		Target:          fromTarget(p.GetTarget()),
		Access:          accessName(p.GetAccess()),
	}
	for _, field := range []struct{ name, value string }{
		{"id", c.ID}, {"grant", c.Grant}, {"access key id", c.AccessKeyID},
		{"secret access key", c.SecretAccessKey}, {"session token", c.SessionToken},
	} {
		if !plain(field.value) {
			return Credential{}, fmt.Errorf("its %s is empty or malformed", field.name)
		}
	}
	if err := p.GetExpireTime().CheckValid(); err != nil {
		return Credential{}, fmt.Errorf("its expire time is malformed: %w", err)
	}
	if err := p.GetIssueTime().CheckValid(); err != nil {
		return Credential{}, fmt.Errorf("its issue time is malformed: %w", err)
	}
	c.Issued, c.Expires = p.GetIssueTime().AsTime(), p.GetExpireTime().AsTime()
	if !c.Expires.After(c.Issued) {
		return Credential{}, fmt.Errorf("it expires before it was issued")
	}
	return c, nil
}

// plain says whether a text is not empty and holds printable ASCII alone, so
// that it can stand in a header, a file and an environment as it is.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != ""
}

func fromTarget(p *stokerv1.Target) Target {
	return Target{
		Bucket:    printable(p.GetBucket()),
		Prefix:    printable(p.GetPrefix()),
		Region:    printable(p.GetRegion()),
		Endpoint:  printable(p.GetEndpoint()),
		KMSKeyARN: printable(p.GetKmsKeyArn()),
	}
}

// accessName gives the documented word for an access: "ACCESS_BACKUP" is "backup".
func accessName(a stokerv1.Access) string {
	return strings.ToLower(strings.TrimPrefix(a.String(), "ACCESS_"))
}
