package pki

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultInterval is how often files are looked at. Notification services of
// the operating system are not used: they miss changes on network file systems
// and on the linked directories that container platforms mount.
const DefaultInterval = 500 * time.Millisecond

// issuedLife is how long a server certificate is good for that the broker
// makes for itself; it is made again at two thirds of that.
const issuedLife = 7 * 24 * time.Hour

// ReloaderConfig says where a listener's certificates come from.
type ReloaderConfig struct {
	// Certificate and Key name PEM files: the server certificate followed by
	// any intermediates, and its private key. Where both are empty the
	// Authority issues a certificate for Names, and again in good time.
	Certificate, Key string
	// Names are the DNS names and addresses of an issued certificate.
	Names []string
	// ClientCA names a PEM bundle of the authorities whose client
	// certificates are trusted. It may be empty if Authority is set, which is
	// trusted in any case.
	ClientCA string
	// CRL names a file of revocation lists (PEM, or one in DER), each signed
	// by a trusted authority. Optional.
	CRL string
	// Authority is the built-in authority, where there is one.
	Authority *Authority
	// Interval is how often the files are looked at; 0 means DefaultInterval.
	Interval time.Duration
	Log      *slog.Logger
}

// Reloader keeps a listener's server certificate, client authorities and
// revocation list current. New connections get what is current; connections
// that are open keep what they were opened with, so that nothing is dropped.
// A new version that cannot be used leaves the old one in force, and Status
// and the log say so until it is corrected.
//
// It is safe for concurrent use.
type Reloader struct {
	cfg     ReloaderConfig
	current atomic.Pointer[material]

	mu        sync.Mutex // over what follows; never held during a handshake
	server    serverPart
	trust     trustPart
	observers map[int]func()
	nextID    int
	status    [2]Status
}

// material is one consistent state of all parts. It is never changed.
type material struct {
	mutual, serverOnly *tls.Config
	revoked            map[string]struct{}
	anchors            map[string]struct{} // the trusted authorities, see anchor
}

// Status says how one of the parts stands.
type Status struct {
	// Name is "server certificate" or "client authorities".
	Name string
	// Loaded is when the version in force was read or issued.
	Loaded time.Time
	// Expires is the earliest end among its certificates.
	Expires time.Time
	// NextUpdate is when the revocation list is due for replacement; zero
	// where there is none.
	NextUpdate time.Time
	// Err is why the latest version is not in force, or what is wrong with
	// the one that is; nil if all is well.
	Err error
}

// NewReloader reads everything once and reports all problems together. Nothing
// is reloaded until Run.
func NewReloader(cfg ReloaderConfig) (*Reloader, error) {
	if cfg.Interval <= 0 {
		cfg.Interval = DefaultInterval
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	var problems []error
	switch {
	case (cfg.Certificate == "") != (cfg.Key == ""):
		problems = append(problems, errors.New("server certificate: give both the certificate and the key file, or neither"))
	case cfg.Certificate == "" && cfg.Authority == nil:
		problems = append(problems, errors.New("server certificate: give its files, or use the built-in authority"))
	case cfg.Certificate == "" && len(cfg.Names) == 0:
		problems = append(problems, errors.New("server certificate: give the names that clients connect to"))
	}
	if cfg.ClientCA == "" && cfg.Authority == nil {
		problems = append(problems, errors.New("client authorities: give a bundle, or use the built-in authority"))
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	r := &Reloader{cfg: cfg, observers: map[int]func(){}}
	r.server = newServerPart(cfg)
	r.trust = newTrustPart(cfg)
	r.status[0].Name, r.status[1].Name = "server certificate", "client authorities"
	if err := r.Reload(); err != nil {
		return nil, err
	}
	return r, nil
}

// Run reloads what changes until ctx ends. It returns nil then.
func (r *Reloader) Run(ctx context.Context) error {
	ticker := time.NewTicker(r.cfg.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			_ = r.Reload() // logged and kept in Status
		}
	}
}

// Reload looks at the files now. It returns why a part could not be brought up
// to date; the parts that could are in force all the same.
func (r *Reloader) Reload() error {
	r.mu.Lock()
	now := time.Now()
	serverChanged, serverErr := r.server.refresh(now)
	r.note(0, now, serverChanged, r.server.expires, time.Time{}, serverErr)
	trustChanged, trustErr := r.trust.refresh(now)
	r.note(1, now, trustChanged, r.trust.expires, r.trust.revoked.nextUpdate, trustErr)
	err := errors.Join(serverErr, trustErr)
	if (serverChanged || trustChanged) && r.server.ready() && r.trust.ready() {
		r.current.Store(r.assemble())
	}
	var tell []func()
	if trustChanged {
		for _, fn := range r.observers {
			tell = append(tell, fn)
		}
	}
	r.mu.Unlock()
	for _, fn := range tell {
		fn()
	}
	return err
}

// note keeps a part's outcome and logs it when it differs from the last.
func (r *Reloader) note(part int, now time.Time, changed bool, expires, nextUpdate time.Time, err error) {
	s := &r.status[part]
	first := s.Loaded.IsZero()
	if changed {
		s.Loaded, s.Expires, s.NextUpdate = now, expires, nextUpdate
		if !first {
			r.cfg.Log.Info("reloaded "+s.Name, "expires", expires)
		}
	}
	if err != nil && !first && (s.Err == nil || s.Err.Error() != err.Error()) {
		r.cfg.Log.Error("cannot reload "+s.Name+": the old version stays in force", "err", err)
	}
	s.Err = err
}

// Status says how the server certificate and the client authorities stand, in
// this order. A revocation list past its next update, and a server certificate
// past its end, stay in force and are reported here.
func (r *Reloader) Status() []Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	all := r.status
	if s := &all[0]; s.Err == nil && now.After(s.Expires) {
		s.Err = errors.New("the server certificate is past its end: replace its file")
	}
	if s := &all[1]; s.Err == nil && !s.NextUpdate.IsZero() && now.After(s.NextUpdate) {
		s.Err = errors.New("the revocation list is past its next update: replace its file")
	}
	return all[:]
}

// Observe has fn called after each change of the client authorities or the
// revocation list, so that open streams can be checked again. fn must be
// quick. stop ends it.
func (r *Reloader) Observe(fn func()) (stop func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := r.nextID
	r.nextID++
	r.observers[id] = fn
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.observers, id)
	}
}

// Revoked says whether the revocation list has the serial number, written as
// Serial does.
func (r *Reloader) Revoked(serial string) bool {
	_, revoked := r.current.Load().revoked[serial]
	return revoked
}

// Mutual is the configuration of listeners that require a client certificate:
// TLS 1.3, no session resumption (which would skip the checks), HTTP/2.
func (r *Reloader) Mutual() *tls.Config {
	return r.dynamic(tls.RequireAndVerifyClientCert, func(m *material) *tls.Config { return m.mutual })
}

// ServerOnly is the configuration of the enrollment listener, where callers
// have no certificate yet. Its chain ends in the built-in authority's own
// certificate if that signed the server's: a caller that knows only the
// authority's pin needs it.
func (r *Reloader) ServerOnly() *tls.Config {
	return r.dynamic(tls.NoClientCert, func(m *material) *tls.Config { return m.serverOnly })
}

// dynamic is the outer configuration. What it says itself is the strict
// minimum, for the case that somebody uses it without its callback.
func (r *Reloader) dynamic(auth tls.ClientAuthType, pick func(*material) *tls.Config) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{"h2"},
		SessionTicketsDisabled: true,
		ClientAuth:             auth,
		ClientCAs:              x509.NewCertPool(),
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return pick(r.current.Load()), nil
		},
	}
}

// assemble makes the state that new connections get. r.mu is held.
func (r *Reloader) assemble() *material {
	base := tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{"h2"},
		SessionTicketsDisabled: true,
	}
	mutual, serverOnly := base.Clone(), base.Clone()
	mutual.Certificates = []tls.Certificate{r.server.certificate}
	mutual.ClientAuth = tls.RequireAndVerifyClientCert
	mutual.ClientCAs = r.trust.pool
	mutual.VerifyConnection = r.verifyConnection
	serverOnly.Certificates = []tls.Certificate{withAuthority(r.server.certificate, r.cfg.Authority)}
	return &material{mutual: mutual, serverOnly: serverOnly, revoked: r.trust.revoked.serials, anchors: r.trust.anchors}
}

// verifyConnection refuses a peer none of whose verified chains is free of
// revoked certificates. It asks for the list in force now, which may be newer
// than the configuration that the handshake began with.
func (r *Reloader) verifyConnection(state tls.ConnectionState) error {
	if len(state.VerifiedChains) == 0 {
		return errors.New("the client certificate was not verified")
	}
	for _, chain := range state.VerifiedChains {
		if !r.anyRevoked(chain) {
			return nil
		}
	}
	return errors.New("the client certificate is revoked")
}

func (r *Reloader) anyRevoked(chain []*x509.Certificate) bool {
	for _, cert := range chain {
		if r.Revoked(Serial(cert)) {
			return true
		}
	}
	return false
}

// withAuthority appends the authority's certificate to a chain that lacks
// nothing else.
func withAuthority(certificate tls.Certificate, authority *Authority) tls.Certificate {
	if authority == nil {
		return certificate
	}
	last, err := x509.ParseCertificate(certificate.Certificate[len(certificate.Certificate)-1])
	if err != nil || last.Equal(authority.cert) || last.CheckSignatureFrom(authority.cert) != nil {
		return certificate
	}
	chain := make([][]byte, 0, len(certificate.Certificate)+1)
	certificate.Certificate = append(append(chain, certificate.Certificate...), authority.cert.Raw)
	return certificate
}

// describe names a part in its errors.
func describe(part string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", part, err)
}
