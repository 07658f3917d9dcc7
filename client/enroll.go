package client

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"

	"github.com/stokerd/stoker/internal/atomicfile"
	"github.com/stokerd/stoker/internal/jointoken"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

var (
	// ErrWrongBroker is why [Enroll] did not show the token: whoever answered is
	// not of the authority whose pin is in the token.
	ErrWrongBroker = errors.New("this is not the broker that the join token is for")
	// ErrFileExists is why [Enroll] did not begin: it replaces files only when
	// told to.
	ErrFileExists = errors.New("the file is there already")
)

// EnrollConfig says where to enroll, and where to keep what comes of it.
type EnrollConfig struct {
	// Address is the broker's enrollment listener, "host:port". It is another
	// port than the one that agents connect to later.
	Address string
	// ServerName is the name in the broker's certificate. Empty: the host of
	// Address.
	ServerName string
	// Files are written. Their directories must exist.
	Files Files
	// Replace has files replaced that are there already. An old certificate is
	// in use until the new one is in its place.
	Replace bool
	// Dial opens the connection. Nil: TCP, through the proxy that HTTPS_PROXY
	// names, if any.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

// Enroll turns a join token into an agent's first certificate: it makes a key,
// has the broker sign a certificate for it, and writes both to files.
//
// The token's pin is all that the broker is recognized by, besides its name: the
// system's authorities have no say. The token is sent once the broker has proved
// who it is. It is used up as soon as the broker has found it good, so Enroll
// asks once and tries nothing again; all that can go wrong on this side is tried
// before. An error is an *Error if it concerns the broker, with its reason where
// that has spoken.
func Enroll(ctx context.Context, token string, config EnrollConfig) (_ Certificate, err error) {
	parsed, err := jointoken.Parse(token)
	if err != nil {
		return Certificate{}, err
	}
	if err := checkAddress(config.Address); err != nil {
		return Certificate{}, fmt.Errorf("broker %q: %w", config.Address, err)
	}
	asked, err := newRequest()
	if err != nil {
		return Certificate{}, err
	}
	files := config.Files
	next, err := files.prepare(asked.key)
	if err != nil {
		return Certificate{}, err
	}
	defer func() { err = errors.Join(err, next.abandon()) }()
	// Under the lock: nobody makes them after this look.
	if err := files.vacant(config.Replace); err != nil {
		return Certificate{}, err
	}
	authority, err := atomicfile.Stage(files.Authority, make([]byte, room), publicMode)
	if err != nil {
		return Certificate{}, err
	}
	defer func() { err = errors.Join(err, authority.Discard()) }()

	bundle, err := config.ask(ctx, parsed, asked.der)
	if err != nil {
		return Certificate{}, err
	}
	got, err := asked.accept(bundle, func(c *x509.Certificate) bool { return pinOf(c) == parsed.Pin() })
	if err != nil {
		return Certificate{}, err
	}
	if err := authority.Refill(got.authority); err != nil {
		return Certificate{}, err
	}
	if err := authority.Place(); err != nil {
		return Certificate{}, err
	}
	return describe(got.leaf), next.commit(got.certificate)
}

// vacant refuses to replace what is there, unless that is wanted.
func (f Files) vacant(replace bool) error {
	if replace {
		return nil
	}
	for _, file := range []string{f.Key, f.Certificate, f.Authority} {
		switch _, err := os.Lstat(file); {
		case err == nil:
			return fmt.Errorf("%s: %w", file, ErrFileExists)
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	return nil
}

// ask makes the call.
func (c EnrollConfig) ask(ctx context.Context, token jointoken.Token, der []byte) (*stokerv1.CertificateBundle, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	name := c.ServerName
	if name == "" {
		name, _, _ = net.SplitHostPort(c.Address) // it was checked
	}
	l, err := openLink(c.Address, pinned(token.Pin(), name), c.Dial)
	if err != nil {
		return nil, err
	}
	defer l.close()
	answer, err := stokerv1.NewEnrollmentServiceClient(l.conn).Enroll(ctx, &stokerv1.EnrollRequest{
		JoinToken: token.Reveal(), CertificateRequest: der,
	})
	if err != nil {
		return nil, l.explain(ctx, err)
	}
	return answer.GetCertificate(), nil
}

// pinned is TLS to a server that is recognized by the pin of its authority.
func pinned(pin, name string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: name,
		// Not less than the usual verification, but another one: by the pin in
		// place of the system's authorities.
		InsecureSkipVerify: true, //nolint:gosec // G402: VerifyConnection verifies
		VerifyConnection: func(state tls.ConnectionState) error {
			if err := verifyPinned(state.PeerCertificates, pin, name); err != nil {
				return &tls.CertificateVerificationError{UnverifiedCertificates: state.PeerCertificates, Err: err}
			}
			return nil
		},
	}
}

// verifyPinned verifies a chain as usual, for the name and for a server, with the
// one authority that has the pin. The server sends that authority's certificate
// along, since we know nothing of it but the pin. Anybody can send it: what
// counts is that its key has signed the server's.
func verifyPinned(chain []*x509.Certificate, pin, name string) error {
	if len(chain) == 0 {
		return ErrWrongBroker
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	found := false
	for _, c := range chain[1:] {
		// Its signature by itself keeps others from writing around its key what
		// they like.
		if pinOf(c) == pin && c.IsCA && c.CheckSignatureFrom(c) == nil {
			roots.AddCert(c)
			found = true
		} else {
			intermediates.AddCert(c)
		}
	}
	if !found {
		return ErrWrongBroker
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, DNSName: name, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if errors.As(err, new(x509.UnknownAuthorityError)) {
		return fmt.Errorf("%w: %w", ErrWrongBroker, err)
	}
	return err
}

// pinOf is the SHA-256 of a certificate's public key, in lower-case hexadecimal,
// as join tokens have it.
func pinOf(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}
