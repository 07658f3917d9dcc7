package delivery

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// path is where credentials are; a grant's name may follow.
	path = "/v1/credentials"
	// shortestToken is the least length of a token, in characters.
	shortestToken = 26
)

// Endpoint serves credentials to tools on this machine, the way Amazon ECS does
// for containers. It answers from its supply's memory, listens on loopback
// alone, and speaks only to consumers that have a token: other users of the
// machine can connect, and so can a web page in a browser that follows a
// hostile name to 127.0.0.1.
type Endpoint struct {
	site   site
	supply Supply
	log    *slog.Logger
	noise  rate.Sometimes

	mu        sync.RWMutex
	consumers map[string]consumer
}

// consumer is who may ask. Of the token only the hash is kept.
type consumer struct {
	token  [sha256.Size]byte
	grants []string // empty: all
}

// Listen starts an endpoint on a loopback address, "127.0.0.1:0" for any free
// port. Close it when done. A nil logger logs nothing.
func Listen(address string, supply Supply, log *slog.Logger) (*Endpoint, error) {
	listener, err := listenLoopback(address)
	if err != nil {
		return nil, fmt.Errorf("endpoint %q: %w", address, err)
	}
	e := &Endpoint{
		supply:    supply,
		log:       quiet(log),
		noise:     rate.Sometimes{Interval: time.Minute},
		consumers: make(map[string]consumer),
	}
	e.site.serve(listener, e, e.log)
	return e, nil
}

// Close stops the endpoint and waits for its goroutines.
func (e *Endpoint) Close() error { return e.site.close() }

// Admit lets a consumer in and gives its token, for the named grants alone, or
// for all. A consumer of the same name loses its old token.
func (e *Endpoint) Admit(name string, grants ...string) (token string) {
	token = rand.Text() + rand.Text()
	e.admit(name, token, grants)
	return token
}

// AdmitToken is Admit with a token that is kept elsewhere, such as in the file
// that KeepToken reads.
func (e *Endpoint) AdmitToken(name, token string, grants ...string) error {
	if !wellFormed(token) {
		return fmt.Errorf("token of consumer %q: it must have at least %d letters or digits", name, shortestToken)
	}
	e.admit(name, token, grants)
	return nil
}

func (e *Endpoint) admit(name, token string, grants []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.consumers[name] = consumer{token: sha256.Sum256([]byte(token)), grants: slices.Clone(grants)}
}

// Dismiss makes a consumer's token worthless.
func (e *Endpoint) Dismiss(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.consumers, name)
}

// URL is where a grant's credentials are; "" for the only grant.
func (e *Endpoint) URL(grant string) string {
	u := url.URL{Scheme: "http", Host: e.site.listener.Addr().String(), Path: path}
	if grant != "" {
		u.Path += "/" + grant
	}
	return u.String()
}

// ServeHTTP answers one request. What a stranger may learn is that it is one.
func (e *Endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, err := e.identify(r)
	if err != nil {
		e.noise.Do(func() {
			e.log.Warn("refused a request for credentials", slog.String("error", err.Error()), slog.String("from", r.RemoteAddr))
		})
		refuse(w, err)
		return
	}
	serveCredential(w, r, e.supply, c.grants)
}

// serveCredential answers a request of a consumer that may have these grants.
func serveCredential(w http.ResponseWriter, r *http.Request, supply Supply, allowed []string) {
	grant, err := grantOf(r, allowed)
	if err != nil {
		if r.Method != http.MethodGet {
			w.Header().Set("Allow", http.MethodGet)
		}
		refuse(w, err)
		return
	}
	least, err := minTTL(r.URL.Query().Get("min_ttl"))
	if err != nil {
		refuse(w, err)
		return
	}
	c, err := take(supply, grant, least)
	if err != nil {
		refuse(w, err)
		return
	}
	if len(allowed) > 0 && !slices.Contains(allowed, c.Grant) {
		refuse(w, notAdmitted(c.Grant))
		return
	}
	reply(w, http.StatusOK, newAnswer(c))
}

// grantOf finds the grant in a request; "" is the only one.
func grantOf(r *http.Request, allowed []string) (string, error) {
	rest, found := strings.CutPrefix(r.URL.Path, path)
	grant := strings.TrimPrefix(rest, "/")
	switch {
	case !found || (rest != "" && !strings.HasPrefix(rest, "/")) || strings.Contains(grant, "/"):
		return "", Refusal{status: http.StatusNotFound, Code: "PATH_UNKNOWN", Message: "credentials are at " + path + "/GRANT"}
	case r.Method != http.MethodGet:
		return "", Refusal{status: http.StatusMethodNotAllowed, Code: "METHOD_NOT_ALLOWED", Message: "use GET"}
	case grant == "" && len(allowed) == 1:
		return allowed[0], nil
	case grant != "" && len(allowed) > 0 && !slices.Contains(allowed, grant):
		return "", notAdmitted(grant)
	}
	return grant, nil
}

func notAdmitted(grant string) Refusal {
	return Refusal{status: http.StatusForbidden, Code: "GRANT_NOT_ADMITTED", Message: "this token is not for grant " + grant}
}

// identify finds the consumer that a request comes from.
func (e *Endpoint) identify(r *http.Request) (consumer, error) {
	if err := e.site.checkOrigin(r); err != nil {
		return consumer{}, err
	}
	sent := r.Header.Values("Authorization")
	if len(sent) != 1 || sent[0] == "" {
		return consumer{}, Refusal{status: http.StatusUnauthorized, Code: "TOKEN_MISSING", Message: "send the token in the Authorization header"}
	}
	hash := sha256.Sum256([]byte(strings.TrimPrefix(sent[0], "Bearer ")))
	e.mu.RLock()
	defer e.mu.RUnlock()
	found, match := consumer{}, 0
	for _, c := range e.consumers {
		// Every consumer is compared, so that time tells nothing.
		if equal := subtle.ConstantTimeCompare(hash[:], c.token[:]); equal == 1 {
			found, match = c, 1
		}
	}
	if match == 0 {
		return consumer{}, Refusal{status: http.StatusUnauthorized, Code: "TOKEN_WRONG", Message: "the token is of no use here"}
	}
	return found, nil
}

// Variables are what a tool needs in its environment to ask this endpoint.
func (e *Endpoint) Variables(grant, token string) []string {
	return []string{
		"AWS_CONTAINER_CREDENTIALS_FULL_URI=" + e.URL(grant),
		"AWS_CONTAINER_AUTHORIZATION_TOKEN=" + token,
	}
}
