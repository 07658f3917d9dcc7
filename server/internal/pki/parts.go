package pki

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/stokerd/stoker/server/internal/secret"
)

// serverPart is the server certificate, from files or issued.
type serverPart struct {
	chain, key *watched // nil: issued
	authority  *Authority
	names      []string

	certificate tls.Certificate
	expires     time.Time
	renewAt     time.Time // when an issued certificate is made again
	pending     bool      // the files changed and are not in force
}

func newServerPart(cfg ReloaderConfig) serverPart {
	p := serverPart{authority: cfg.Authority, names: cfg.Names}
	if cfg.Certificate != "" {
		p.chain = &watched{path: cfg.Certificate}
		p.key = &watched{path: cfg.Key, private: true}
	}
	return p
}

// ready says whether there is a certificate to serve.
func (p *serverPart) ready() bool { return len(p.certificate.Certificate) > 0 }

// refresh brings the part up to date and says whether it changed.
func (p *serverPart) refresh(now time.Time) (changed bool, err error) {
	if p.chain == nil {
		changed, err = p.issue(now)
	} else {
		changed, err = p.read(now)
	}
	return changed, describe("server certificate", err)
}

func (p *serverPart) read(now time.Time) (bool, error) {
	chainChanged, chainErr := p.chain.load(now)
	keyChanged, keyErr := p.key.load(now)
	p.pending = p.pending || chainChanged || keyChanged
	if err := errors.Join(chainErr, keyErr); err != nil || !p.pending {
		return false, err
	}
	certs, err := ParseCertificates(p.chain.data)
	if err != nil {
		return false, fmt.Errorf("%s: %w", p.chain.path, err)
	}
	key, err := ParseKey(secret.New(string(p.key.data)))
	if err != nil {
		return false, fmt.Errorf("%s: %w", p.key.path, err)
	}
	leaf := certs[0]
	switch {
	case !publicEqual(leaf.PublicKey, key.Public()):
		return false, fmt.Errorf("%s does not belong to %s", p.key.path, p.chain.path)
	case now.After(leaf.NotAfter):
		return false, fmt.Errorf("%s ended on %s", p.chain.path, leaf.NotAfter.Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return false, fmt.Errorf("%s begins only on %s", p.chain.path, leaf.NotBefore.Format(time.RFC3339))
	}
	p.certificate = pair(key, certs...)
	p.expires, p.pending = earliest(certs), false
	return true, nil
}

// issue makes a new certificate with a new key when the present one has used
// up two thirds of its life.
func (p *serverPart) issue(now time.Time) (bool, error) {
	if now.Before(p.renewAt) {
		return false, nil
	}
	var dnsNames []string
	var addresses []net.IP
	for _, name := range p.names {
		if ip := net.ParseIP(name); ip != nil {
			addresses = append(addresses, ip)
		} else {
			dnsNames = append(dnsNames, name)
		}
	}
	issued, err := NewPair(func(key crypto.PublicKey) (*x509.Certificate, error) {
		return p.authority.SignServer(key, dnsNames, addresses, issuedLife)
	})
	if err != nil {
		return false, err
	}
	p.certificate, p.expires = issued, issued.Leaf.NotAfter
	p.renewAt = now.Add(p.expires.Sub(now) * 2 / 3)
	return true, nil
}

// trustPart is the client authorities with their revocation lists. The two are
// one part because a list counts only if a trusted authority signed it.
type trustPart struct {
	bundle, crl *watched // nil: none
	authority   *Authority

	pool    *x509.CertPool
	anchors map[string]struct{}
	revoked revocations
	expires time.Time
	pending bool
}

func newTrustPart(cfg ReloaderConfig) trustPart {
	p := trustPart{authority: cfg.Authority, pending: true}
	if cfg.ClientCA != "" {
		p.bundle = &watched{path: cfg.ClientCA}
	}
	if cfg.CRL != "" {
		p.crl = &watched{path: cfg.CRL}
	}
	return p
}

// ready says whether there are authorities to trust.
func (p *trustPart) ready() bool { return p.pool != nil }

// refresh brings the part up to date and says whether it changed.
func (p *trustPart) refresh(now time.Time) (changed bool, err error) {
	changed, err = p.read(now)
	return changed, describe("client authorities", err)
}

func (p *trustPart) read(now time.Time) (bool, error) {
	var problems []error
	for _, file := range []*watched{p.bundle, p.crl} {
		if file == nil {
			continue
		}
		changed, err := file.load(now)
		p.pending = p.pending || changed
		if err != nil {
			problems = append(problems, err)
		}
	}
	if err := errors.Join(problems...); err != nil || !p.pending {
		return false, err
	}
	authorities, err := p.authorities()
	if err != nil {
		return false, err
	}
	var revoked revocations
	if p.crl != nil {
		if revoked, err = parseRevocations(p.crl.data, authorities); err != nil {
			return false, fmt.Errorf("%s: %w", p.crl.path, err)
		}
	}
	p.pool, p.anchors = x509.NewCertPool(), make(map[string]struct{}, len(authorities))
	for _, authority := range authorities {
		p.pool.AddCert(authority)
		p.anchors[anchor(authority)] = struct{}{}
	}
	p.revoked, p.expires, p.pending = revoked, earliest(authorities), false
	return true, nil
}

// authorities lists those that are trusted, the built-in one included.
func (p *trustPart) authorities() ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	if p.bundle != nil {
		certs, err := ParseCertificates(p.bundle.data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.bundle.path, err)
		}
		for n, cert := range certs {
			if !cert.BasicConstraintsValid || !cert.IsCA {
				return nil, fmt.Errorf("%s: certificate %d is no authority's", p.bundle.path, n+1)
			}
		}
		all = certs
	}
	if p.authority != nil {
		all = append(all, p.authority.cert)
	}
	return all, nil
}

// earliest is the first end among certificates.
func earliest(certs []*x509.Certificate) time.Time {
	end := certs[0].NotAfter
	for _, cert := range certs[1:] {
		if cert.NotAfter.Before(end) {
			end = cert.NotAfter
		}
	}
	return end
}
