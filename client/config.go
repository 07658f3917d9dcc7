package client

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The limits that the broker sets on a subscription.
const (
	mostGrants    = 100
	longestClient = 128
)

var grantName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// Config says which broker to ask, as whom, and for what. Brokers, a certificate
// and either Login and Password or Delegation are required.
type Config struct {
	// Brokers are addresses "host:port", tried in this order. A name that
	// resolves to several addresses is tried at each of them.
	Brokers []string

	// CAFile holds the authority (PEM) that signed the broker's certificate.
	// Empty: TLS.RootCAs, else the system's authorities.
	CAFile string
	// CertFile and KeyFile hold this agent's certificate and its key (PEM).
	// They are looked at every minute and read again for each connection, so
	// that a replaced certificate is taken into use, without a gap. Empty:
	// TLS.Certificates or TLS.GetClientCertificate.
	CertFile, KeyFile string
	// Renew has the source renew the certificate itself at two thirds of its
	// life, with a new key, and replace the files. It needs a broker with an
	// authority of its own. Where it turns out that the certificate cannot be
	// renewed from here, the source says so once and only reads the files.
	Renew bool
	// ServerName is the name in the broker's certificate. Empty: the host of
	// its address.
	ServerName string
	// TLS is what the files above leave out. It is cloned; TLS 1.3 is the least
	// whatever it says. May be nil.
	TLS *tls.Config

	// Login is the user, "login@tenant".
	Login string
	// Password gives the user's password. It is called for each login, also two
	// at a time, so that a changed password is picked up; the source keeps nothing of it. Its
	// error is permanent: it ends Wait, and the source calls it again minutes
	// later.
	Password func(context.Context) (string, error)

	// Delegation is for an internal service of the provider, which has a
	// certificate and no login: it takes the place of Login, Password and Grants.
	// Nil: this is an agent.
	Delegation *Delegation

	// Grants are the names of the wanted grants, at most 100. Empty: all of the
	// user's, those included that are added later.
	Grants []string

	// Client says what this is, for the provider's people: "acmebackup/3.1
	// linux". At most 128 characters. May be empty.
	Client string
	// Logger gets what happens, never a secret. Nil: nothing is logged.
	Logger *slog.Logger
	// Dial opens the connection to a broker's address. Nil: TCP, through the
	// proxy that HTTPS_PROXY names, if any.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

// complete checks the configuration, reports all its problems at once, and
// returns a copy that the caller cannot change any more.
func (c Config) complete() (Config, error) {
	var problems []error
	complain := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf(format, args...))
	}
	c.Brokers, c.Grants = slices.Clone(c.Brokers), slices.Clone(c.Grants)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if len(c.Brokers) == 0 {
		complain("no broker: name at least one as host:port")
	}
	for _, b := range c.Brokers {
		if err := checkAddress(b); err != nil {
			complain("broker %q: %w", b, err)
		}
	}
	if c.Delegation != nil {
		problems = append(problems, c.delegate()...)
	} else {
		if err := checkLogin(c.Login); err != nil {
			problems = append(problems, err)
		}
		if c.Password == nil {
			complain("no password: set a function that gives it")
		}
	}
	if len(c.Grants) > mostGrants {
		complain("%d grants: name at most %d, or none for all", len(c.Grants), mostGrants)
	}
	for i, g := range c.Grants {
		if !grantName.MatchString(g) {
			complain("grant %q: a name has 1 to 63 of a-z, 0-9 and -", g)
		}
		if slices.Contains(c.Grants[:i], g) {
			complain("grant %q is named twice", g)
		}
	}
	if len(c.Client) > longestClient || c.Client != printable(c.Client) {
		complain("client: at most %d printable characters", longestClient)
	}
	if c.Renew && c.CertFile == "" {
		complain("renew: name the files of the certificate and its key")
	}
	if _, _, err := c.loadTLS(); err != nil {
		problems = append(problems, err)
	}
	return c, errors.Join(problems...)
}

func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return errors.New("it must be host:port")
	}
	if host == "" {
		return errors.New("it has no host")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return errors.New("its port must be a number from 1 to 65535")
	}
	return nil
}

// checkLogin accepts what can stand in a Basic authorization. The broker knows
// the exact rules.
func checkLogin(login string) error {
	name, tenant, found := strings.Cut(login, "@")
	if !found || name == "" || tenant == "" || strings.Contains(tenant, "@") ||
		strings.Contains(login, ":") || !plain(login) {
		return fmt.Errorf("login %q: it must be login@tenant", printable(login))
	}
	return nil
}

// basic makes the Basic authorization, for one call.
func (c Config) basic(ctx context.Context) (string, error) {
	password, err := c.Password(ctx)
	if err != nil {
		return "", &Error{Message: "no password: " + err.Error(), cause: err}
	}
	if password == "" {
		return "", &Error{Message: "no password: it is empty"}
	}
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.Login+":"+password)), nil
}
