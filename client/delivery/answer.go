package delivery

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/stokerd/stoker/client"
)

// credentialAnswer is what a container-credentials endpoint answers.
type credentialAnswer struct {
	AccessKeyID     string `json:"AccessKeyId"`
	SecretAccessKey string `json:"SecretAccessKey"`
	Token           string `json:"Token"`
	Expiration      string `json:"Expiration"`
}

// Refusal is an answer without credentials, as an endpoint gives it. Its JSON
// form is what the AWS SDKs read.
type Refusal struct {
	// Code is the broker's reason where it has one, else one of ours, such as
	// NO_CREDENTIAL_YET, CREDENTIAL_EXPIRED or TOKEN_WRONG.
	Code    string `json:"code"`
	Message string `json:"message"`

	status int
	again  time.Duration // when asking again may help; 0: there is no telling
}

// Error gives the code and the message.
func (f Refusal) Error() string { return f.Code + ": " + f.Message }

// Transient says whether asking again later may help.
func (f Refusal) Transient() bool { return f.status == http.StatusServiceUnavailable }

// Unknown says whether the agent does not have the grant that was asked for.
func (f Refusal) Unknown() bool { return f.status == http.StatusNotFound }

// expiration writes a time the way AWS does. It is cut to whole seconds, so
// never later than the truth.
func expiration(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func newAnswer(c client.Credential) credentialAnswer {
	return credentialAnswer{
		AccessKeyID:     c.AccessKeyID,
		SecretAccessKey: c.SecretAccessKey,
		Token:           c.SessionToken,
		Expiration:      expiration(c.Expires),
	}
}

// retrySoon is what a tool is told to wait where the supply is expected to heal.
const retrySoon = 5 * time.Second

// states are the answers where a supply gives no cause.
var states = []struct {
	state  error
	code   string
	status int
}{
	{client.ErrNoCredentialYet, "NO_CREDENTIAL_YET", http.StatusServiceUnavailable},
	{client.ErrExpired, "CREDENTIAL_EXPIRED", http.StatusServiceUnavailable},
	{client.ErrRevoked, "CREDENTIAL_REVOKED", http.StatusForbidden},
	{client.ErrNotConfigured, "GRANT_UNKNOWN", http.StatusNotFound},
	{client.ErrAmbiguous, "GRANT_AMBIGUOUS", http.StatusBadRequest},
	{client.ErrClosed, "AGENT_STOPPING", http.StatusServiceUnavailable},
}

// explain turns a supply's error into an answer: 403 where somebody must act,
// 404 for what is not there, 503 where waiting may help.
func explain(err error) Refusal {
	var of *client.CredentialError
	if !errors.As(err, &of) {
		return Refusal{status: http.StatusInternalServerError, Code: "INTERNAL", Message: err.Error()}
	}
	f := Refusal{status: http.StatusServiceUnavailable, Code: "UNAVAILABLE", Message: of.Error(), again: retrySoon}
	for _, s := range states {
		if errors.Is(of.State, s.state) {
			f.Code, f.status = s.code, s.status
		}
	}
	if !f.Transient() {
		f.again = 0
	}
	if f.Unknown() || f.status == http.StatusBadRequest {
		return f // the question is wrong, whatever the broker says
	}
	if of.Cause != nil && of.Cause.Reason != "" {
		f.Code = string(of.Cause.Reason)
	}
	if of.Cause != nil && !of.Cause.Transient {
		f.status, f.again = http.StatusForbidden, 0
	}
	return f
}

// take gets a credential with at least minLife left from a supply.
func take(supply Supply, grant string, minLife time.Duration) (client.Credential, error) {
	c, err := supply.Credential(grant)
	if err != nil {
		return client.Credential{}, explain(err)
	}
	if left := time.Until(c.Expires); left < minLife {
		return client.Credential{}, Refusal{
			status: http.StatusServiceUnavailable, Code: "TTL_TOO_SHORT", again: retrySoon,
			Message: "the credential has " + left.Truncate(time.Second).String() + " left: ask again, or for less",
		}
	}
	return c, nil
}

// minTTL reads the query's "min_ttl": seconds, or a duration such as "15m".
func minTTL(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	seconds, err := strconv.ParseUint(text, 10, 31)
	if err == nil {
		return time.Duration(seconds) * time.Second, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, Refusal{
			status: http.StatusBadRequest, Code: "MIN_TTL_MALFORMED",
			Message: "min_ttl must be a number of seconds or a duration such as 15m",
		}
	}
	return d, nil
}

// reply writes an answer or a failure as JSON.
func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	// A consumer that has gone does not need the rest.
	_ = json.NewEncoder(w).Encode(body)
}

func refuse(w http.ResponseWriter, err error) {
	var f Refusal
	if !errors.As(err, &f) {
		f = Refusal{status: http.StatusInternalServerError, Code: "INTERNAL", Message: err.Error()}
	}
	if f.again > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(f.again/time.Second)))
	}
	reply(w, f.status, f)
}

// WriteProcess writes a credential as the answer of a credential_process.
func WriteProcess(w io.Writer, c client.Credential) error {
	//nolint:gosec // G117: handing the secrets to the tool is what it is for
	return json.NewEncoder(w).Encode(struct {
		Version         int    `json:"Version"`
		AccessKeyID     string `json:"AccessKeyId"`
		SecretAccessKey string `json:"SecretAccessKey"`
		SessionToken    string `json:"SessionToken"`
		Expiration      string `json:"Expiration"`
	}{1, c.AccessKeyID, c.SecretAccessKey, c.SessionToken, expiration(c.Expires)})
}
