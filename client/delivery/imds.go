package delivery

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/time/rate"
)

const (
	// The paths and headers of the EC2 instance metadata service, version 2.
	metadataTokenPath = "/latest/api/token"
	metadataRolesPath = "/latest/meta-data/iam/security-credentials"
	metadataToken     = "X-Aws-Ec2-Metadata-Token"
	metadataTokenTTL  = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"

	// longestMetadataToken is the real service's longest life of a token.
	longestMetadataToken = 6 * time.Hour
	// hopLimit is the real service's default: no router passes an answer on.
	hopLimit = 1
)

// IMDS serves one grant the way the instance metadata service of Amazon EC2
// serves the credentials of an instance's role, in its version 2 alone: a
// session token first, got by PUT, which no proxy that adds X-Forwarded-For
// passes on. It listens on loopback alone, its packets live for one hop, and it
// answers from its supply's memory.
//
// It protects less than Endpoint does: the protocol has no secret that tells
// consumers apart, so every user of the machine gets the credentials. It is for
// tools that can ask nothing else.
type IMDS struct {
	site    site
	supply  Supply
	grant   string
	log     *slog.Logger
	noise   rate.Sometimes
	key     [sha256.Size]byte // signs session tokens
	started time.Time         // tokens count from here, so no step of the clock matters
}

// ListenIMDS starts serving a grant, "" for the only one, on a loopback address.
// The grant's name is the role's. Close it when done. A nil logger logs nothing.
func ListenIMDS(address string, supply Supply, grant string, log *slog.Logger) (*IMDS, error) {
	listener, err := listenLoopback(address)
	if err != nil {
		return nil, fmt.Errorf("metadata service %q: %w", address, err)
	}
	m := &IMDS{supply: supply, grant: grant, log: quiet(log), noise: rate.Sometimes{Interval: time.Minute}, started: time.Now()}
	rand.Read(m.key[:])
	m.site.serve(nearListener{listener}, m, m.log)
	return m, nil
}

// Close stops serving and waits for the goroutines.
func (m *IMDS) Close() error { return m.site.close() }

// Variables are what a tool needs in its environment to ask this service.
func (m *IMDS) Variables() []string {
	u := url.URL{Scheme: "http", Host: m.site.listener.Addr().String(), Path: "/"}
	return []string{"AWS_EC2_METADATA_SERVICE_ENDPOINT=" + u.String()}
}

// nearListener keeps its connections on this machine.
type nearListener struct{ net.Listener }

// Accept gives the next connection whose packets end at the first router.
func (l nearListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if err := limitHops(conn); err == nil {
			return conn, nil
		}
		// The peer has gone, or is behind a translation of addresses.
		_ = conn.Close()
	}
}

// limitHops sets the life of a connection's packets, and refuses a peer that is
// not on loopback: a packet filter can bring strangers to a loopback listener.
func limitHops(conn net.Conn) error {
	peer, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return err
	}
	if !peer.Addr().IsLoopback() {
		return errors.New("the peer is not on this machine")
	}
	if peer.Addr().Unmap().Is4() {
		return ipv4.NewConn(conn).SetTTL(hopLimit)
	}
	return ipv6.NewConn(conn).SetHopLimit(hopLimit)
}

// ServeHTTP answers one request.
func (m *IMDS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := m.answer(w, r)
	if err != nil {
		m.noise.Do(func() {
			m.log.Warn("refused a request to the metadata service", slog.String("error", err.Error()), slog.String("path", r.URL.Path))
		})
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain") // as the real one, JSON included
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	// A consumer that has gone does not need the rest.
	_, _ = io.WriteString(w, body) //nolint:gosec // G705: it is plain text, and no page may ask for it
}

func (m *IMDS) answer(w http.ResponseWriter, r *http.Request) (string, error) {
	if err := m.site.checkOrigin(r); err != nil {
		return "", err
	}
	if r.URL.Path == metadataTokenPath {
		return m.issue(w, r)
	}
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		return "", Refusal{status: http.StatusMethodNotAllowed, Code: "METHOD_NOT_ALLOWED", Message: "use GET"}
	}
	if !m.valid(r.Header.Get(metadataToken)) {
		return "", Refusal{
			status: http.StatusUnauthorized, Code: "TOKEN_WRONG",
			Message: "send a token of PUT " + metadataTokenPath + ": version 1 of the service is not served",
		}
	}
	rest, found := strings.CutPrefix(r.URL.Path, metadataRolesPath)
	switch role := strings.TrimPrefix(rest, "/"); {
	case !found || (rest != "" && !strings.HasPrefix(rest, "/")):
		return "", Refusal{status: http.StatusNotFound, Code: "PATH_UNKNOWN", Message: "there is " + metadataRolesPath + "/ alone"}
	case role == "":
		return m.role()
	default:
		return m.credential(role)
	}
}

// issue gives a session token.
func (m *IMDS) issue(w http.ResponseWriter, r *http.Request) (string, error) {
	if r.Method != http.MethodPut {
		w.Header().Set("Allow", http.MethodPut)
		return "", Refusal{status: http.StatusMethodNotAllowed, Code: "METHOD_NOT_ALLOWED", Message: "use PUT"}
	}
	if _, forwarded := r.Header["X-Forwarded-For"]; forwarded {
		return "", Refusal{status: http.StatusForbidden, Code: "FORWARDED", Message: "no token is given through a proxy"}
	}
	asked := r.Header.Values(metadataTokenTTL)
	seconds := uint64(0)
	if len(asked) == 1 {
		// What is no number stays 0, which is refused too.
		seconds, _ = strconv.ParseUint(asked[0], 10, 31)
	}
	life := time.Duration(seconds) * time.Second
	if life <= 0 || life > longestMetadataToken {
		return "", Refusal{
			status: http.StatusBadRequest, Code: "TOKEN_TTL_MALFORMED",
			Message: fmt.Sprintf("%s must be 1 to %d", metadataTokenTTL, int(longestMetadataToken.Seconds())),
		}
	}
	w.Header().Set(metadataTokenTTL, asked[0])
	return m.token(time.Since(m.started) + life), nil
}

// tokenEnd is the length of a token's first part: when it ends.
const tokenEnd = 8

// token makes a session token that is good until a time after the start. It is
// its own proof, so tokens take no memory however many are asked for, and all of
// them end with this process.
func (m *IMDS) token(end time.Duration) string {
	text := binary.BigEndian.AppendUint64(nil, uint64(end))
	mac := hmac.New(sha256.New, m.key[:])
	mac.Write(text)
	return base64.RawURLEncoding.EncodeToString(mac.Sum(text))
}

// valid says whether a session token is ours and has not ended.
func (m *IMDS) valid(token string) bool {
	text, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(text) < tokenEnd {
		return false
	}
	end := time.Duration(binary.BigEndian.Uint64(text))
	return hmac.Equal([]byte(token), []byte(m.token(end))) && time.Since(m.started) < end
}

// role names the role, which is the grant's name.
func (m *IMDS) role() (string, error) {
	if m.grant != "" {
		return m.grant, nil
	}
	c, err := take(m.supply, "", 0)
	return c.Grant, err
}

// credential gives the keys of a role. The real service answers 200 with a code
// of failure where it has none; this one answers with the failure's status, which
// no tool takes for keys.
func (m *IMDS) credential(role string) (string, error) {
	c, err := take(m.supply, m.grant, 0)
	if err != nil {
		return "", err
	}
	if role != c.Grant {
		return "", Refusal{status: http.StatusNotFound, Code: "ROLE_UNKNOWN", Message: "the role is " + c.Grant}
	}
	text, err := json.Marshal(struct {
		Code        string `json:"Code"`
		LastUpdated string `json:"LastUpdated"`
		Type        string `json:"Type"`
		credentialAnswer
	}{"Success", expiration(c.Issued), "AWS-HMAC", newAnswer(c)})
	return string(text), err
}
