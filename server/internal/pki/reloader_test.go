package pki_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stokerd/stoker/server/internal/pki"
)

// site is a broker's set of files, and an authority that stands for the
// provider's own.
type site struct {
	t         *testing.T
	authority *pki.Authority
	cfg       pki.ReloaderConfig
}

func newSite(t *testing.T) *site {
	dir := t.TempDir()
	s := &site{t: t, authority: newAuthority(t), cfg: pki.ReloaderConfig{
		Certificate: filepath.Join(dir, "server.crt"),
		Key:         filepath.Join(dir, "server.key"),
		ClientCA:    filepath.Join(dir, "clients.pem"),
		CRL:         filepath.Join(dir, "clients.crl"),
		Log:         testLog(t),
	}}
	s.writeServer(s.authority, time.Hour)
	s.write(s.cfg.ClientCA, s.authority.CertificatePEM())
	s.write(s.cfg.CRL, newCRL(t, s.authority, x509.RevocationList{}))
	return s
}

func (s *site) write(path string, data []byte) {
	s.t.Helper()
	if err := pki.WriteFile(path, data, pki.KeyMode); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) writeServer(a *pki.Authority, life time.Duration) *x509.Certificate {
	s.t.Helper()
	key := newKey(s.t)
	cert := must[*x509.Certificate](s.t)(a.SignServer(key.Public(), []string{"broker.example"}, nil, life))
	s.write(s.cfg.Certificate, pki.EncodeCertificates(cert))
	s.writeKey(key)
	return cert
}

func (s *site) writeKey(key crypto.Signer) {
	s.t.Helper()
	text, err := pki.EncodeKey(key)
	if err != nil {
		s.t.Fatal(err)
	}
	s.write(s.cfg.Key, []byte(text.Reveal()))
}

func (s *site) reloader() *pki.Reloader {
	s.t.Helper()
	return must[*pki.Reloader](s.t)(pki.NewReloader(s.cfg))
}

// client makes an agent's certificate of an authority.
func client(t testing.TB, a *pki.Authority) tls.Certificate {
	t.Helper()
	key := newKey(t)
	cert := must[*x509.Certificate](t)(a.SignAgent(key.Public(), "acme", "nas-1", time.Hour))
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

func (s *site) clientConfig(certs ...tls.Certificate) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(s.authority.Certificate())
	cfg := &tls.Config{RootCAs: roots, ServerName: "broker.example", NextProtos: []string{"h2"}}
	if len(certs) > 0 {
		// Sent whatever authorities the server asks for.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certs[0], nil }
	}
	return cfg
}

// echo is an open connection to a listener that repeats each byte.
type echo struct {
	*tls.Conn
	done chan error // the server's outcome
}

// connect shakes hands over TCP. Both sides' outcomes count: with TLS 1.3 the
// client is done before the server has seen its certificate.
func connect(t *testing.T, server, client *tls.Config) (*echo, error) {
	t.Helper()
	listener := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	defer func() { _ = listener.Close() }()
	done := make(chan error, 1)
	go func() {
		raw, err := listener.Accept()
		if err != nil {
			done <- err
			return
		}
		conn := tls.Server(raw, server)
		defer func() { _ = conn.Close() }()
		if err := conn.Handshake(); err != nil {
			done <- err
			return
		}
		buffer := make([]byte, 1)
		for {
			if _, err := conn.Read(buffer); err != nil {
				done <- nil
				return
			}
			if _, err := conn.Write(buffer); err != nil {
				done <- err
				return
			}
		}
	}()
	raw := must[net.Conn](t)(net.Dial("tcp", listener.Addr().String()))
	e := &echo{Conn: tls.Client(raw, client), done: done}
	t.Cleanup(func() { _ = e.Close() })
	if err := e.Handshake(); err != nil {
		_ = raw.Close()
		if refused := <-done; refused != nil {
			return nil, refused
		}
		return nil, err
	}
	if err := e.roundTrip(); err != nil {
		if refused := <-done; refused != nil {
			return nil, refused
		}
		return nil, err
	}
	return e, nil
}

func (e *echo) roundTrip() error {
	if _, err := e.Write([]byte{7}); err != nil {
		return err
	}
	_, err := e.Read(make([]byte, 1))
	return err
}

func TestHandshake(t *testing.T) {
	s := newSite(t)
	good, revoked := client(t, s.authority), client(t, s.authority)
	s.write(s.cfg.CRL, newCRL(t, s.authority, x509.RevocationList{}, revoked.Leaf.SerialNumber))
	r := s.reloader()
	past := must[*pki.Authority](t)(pki.NewAuthority(domain, func() time.Time { return time.Now().Add(-2 * time.Hour) }))
	s.write(s.cfg.ClientCA, append(s.authority.CertificatePEM(), past.CertificatePEM()...))
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	old := s.clientConfig(good)
	old.MaxVersion = tls.VersionTLS12
	serverKey := newKey(t)
	serverCert := must[*x509.Certificate](t)(s.authority.SignServer(serverKey.Public(), []string{"broker.example"}, nil, time.Hour))
	serverAsClient := tls.Certificate{Certificate: [][]byte{serverCert.Raw}, PrivateKey: serverKey}
	for name, c := range map[string]struct {
		client *tls.Config
		say    string // empty: accepted
	}{
		"good":           {s.clientConfig(good), ""},
		"no certificate": {s.clientConfig(), "didn't provide a certificate"},
		"other CA":       {s.clientConfig(client(t, newAuthority(t))), "unknown authority"},
		"expired":        {s.clientConfig(client(t, past)), "expired"},
		"revoked":        {s.clientConfig(revoked), "revoked"},
		"for servers":    {s.clientConfig(serverAsClient), "key usage"},
		"TLS 1.2":        {old, "unsupported versions"},
	} {
		e, err := connect(t, r.Mutual(), c.client)
		switch {
		case c.say == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.say != "" && (err == nil || !strings.Contains(err.Error(), c.say)):
			t.Errorf("%s: %v", name, err)
		case err == nil && e.ConnectionState().NegotiatedProtocol != "h2":
			t.Errorf("%s: protocol %q", name, e.ConnectionState().NegotiatedProtocol)
		}
	}
	if !r.Revoked(pki.Serial(revoked.Leaf)) || r.Revoked(pki.Serial(good.Leaf)) {
		t.Error("Revoked is wrong")
	}
}

func TestNoSessionResumption(t *testing.T) {
	s := newSite(t)
	r := s.reloader()
	cfg := s.clientConfig(client(t, s.authority))
	cache := &countingCache{}
	cfg.ClientSessionCache = cache
	for range 3 {
		e, err := connect(t, r.Mutual(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if e.ConnectionState().DidResume {
			t.Fatal("a session was resumed")
		}
	}
	if cache.put.Load() != 0 {
		t.Errorf("%d session tickets were issued", cache.put.Load())
	}
}

type countingCache struct{ put atomic.Int64 }

func (c *countingCache) Get(string) (*tls.ClientSessionState, bool) { return nil, false }
func (c *countingCache) Put(_ string, s *tls.ClientSessionState) {
	if s != nil {
		c.put.Add(1)
	}
}

func TestReloadKeepsConnections(t *testing.T) {
	s := newSite(t)
	r := s.reloader()
	var told atomic.Int64
	stop := r.Observe(func() { told.Add(1) })
	mine := client(t, s.authority)
	open, err := connect(t, r.Mutual(), s.clientConfig(mine))
	if err != nil {
		t.Fatal(err)
	}
	first := open.ConnectionState().PeerCertificates[0]

	second := s.writeServer(s.authority, time.Hour)
	newcomer := newAuthority(t)
	s.write(s.cfg.ClientCA, append(s.authority.CertificatePEM(), newcomer.CertificatePEM()...))
	s.write(s.cfg.CRL, newCRL(t, s.authority, x509.RevocationList{}, mine.Leaf.SerialNumber))
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}

	if err := open.roundTrip(); err != nil {
		t.Errorf("the open connection was dropped: %v", err)
	}
	e, err := connect(t, r.Mutual(), s.clientConfig(client(t, newcomer)))
	if err != nil {
		t.Fatalf("the new authority is not trusted: %v", err)
	}
	if now := e.ConnectionState().PeerCertificates[0]; !now.Equal(second) || now.Equal(first) {
		t.Error("the old server certificate is still served")
	}
	if _, err := connect(t, r.Mutual(), s.clientConfig(mine)); err == nil {
		t.Error("a revoked certificate got in")
	}
	if told.Load() != 1 {
		t.Errorf("observers were told %d times", told.Load())
	}
	stop()
	s.write(s.cfg.CRL, newCRL(t, s.authority, x509.RevocationList{}))
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	if told.Load() != 1 {
		t.Error("an observer was told after it stopped")
	}
	if r.Revoked(pki.Serial(mine.Leaf)) {
		t.Error("the entry is gone from the list and still revoked")
	}
	if err := r.Reload(); err != nil || told.Load() != 1 {
		t.Error("nothing changed, yet something was reloaded")
	}
}

// Each bad new version leaves the old one in force and is reported.
func TestBadVersionsAreNotUsed(t *testing.T) {
	s := newSite(t)
	r := s.reloader()
	served := must[[]byte](t)(os.ReadFile(s.cfg.Certificate))
	servedKey := must[[]byte](t)(os.ReadFile(s.cfg.Key))
	bundle := must[[]byte](t)(os.ReadFile(s.cfg.ClientCA))
	list := must[[]byte](t)(os.ReadFile(s.cfg.CRL))
	other := newAuthority(t)
	otherKey := newKey(t)
	pastServer := must[*pki.Authority](t)(pki.NewAuthority(domain, func() time.Time { return time.Now().Add(-3 * time.Hour) }))
	futureServer := must[*pki.Authority](t)(pki.NewAuthority(domain, func() time.Time { return time.Now().Add(3 * time.Hour) }))
	mine := client(t, s.authority)
	for name, c := range map[string]struct {
		spoil func()
		say   string
		part  int
	}{
		"certificate gone":    {func() { _ = os.Remove(s.cfg.Certificate) }, "no such file", 0},
		"certificate garbled": {func() { s.write(s.cfg.Certificate, []byte("x")) }, "no certificate", 0},
		"certificate empty":   {func() { s.write(s.cfg.Certificate, nil) }, "empty", 0},
		"key of another":      {func() { s.writeKey(otherKey) }, "does not belong", 0},
		"key garbled":         {func() { s.write(s.cfg.Key, []byte("x")) }, "no private key", 0},
		"key for everybody": {func() {
			if err := os.Chmod(s.cfg.Key, 0o644); err != nil {
				t.Fatal(err)
			}
		}, "chmod 600", 0},
		"certificate ended":     {func() { s.writeServer(pastServer, time.Hour) }, "ended", 0},
		"certificate to come":   {func() { s.writeServer(futureServer, time.Hour) }, "begins only", 0},
		"bundle gone":           {func() { _ = os.Remove(s.cfg.ClientCA) }, "no such file", 1},
		"bundle garbled":        {func() { s.write(s.cfg.ClientCA, bundle[:len(bundle)/2]) }, "cut off", 1},
		"bundle of leaves":      {func() { s.write(s.cfg.ClientCA, pki.EncodeCertificates(mine.Leaf)) }, "no authority's", 1},
		"list gone":             {func() { _ = os.Remove(s.cfg.CRL) }, "no such file", 1},
		"list garbled":          {func() { s.write(s.cfg.CRL, []byte("x")) }, "revocation list 1", 1},
		"list cut off":          {func() { s.write(s.cfg.CRL, list[:len(list)-20]) }, "cut off", 1},
		"list is a certificate": {func() { s.write(s.cfg.CRL, bundle) }, "CERTIFICATE", 1},
		"list of another":       {func() { s.write(s.cfg.CRL, newCRL(t, other, x509.RevocationList{})) }, "signed by none", 1},
		"partial list":          {func() { s.write(s.cfg.CRL, newCRL(t, s.authority, partial)) }, "2.5.29.28", 1},
		"indirect list":         {func() { s.write(s.cfg.CRL, newCRL(t, s.authority, indirect)) }, "2.5.29.29", 1},
	} {
		if runtime.GOOS == "windows" && name == "key for everybody" {
			continue
		}
		c.spoil()
		if err := r.Reload(); err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v", name, err)
		}
		if status := r.Status(); status[c.part].Err == nil || status[1-c.part].Err != nil {
			t.Errorf("%s: status %+v", name, status)
		}
		if _, err := connect(t, r.Mutual(), s.clientConfig(mine)); err != nil {
			t.Errorf("%s: the old version is not in force: %v", name, err)
		}
		s.write(s.cfg.Certificate, served)
		s.write(s.cfg.Key, servedKey)
		s.write(s.cfg.ClientCA, bundle)
		s.write(s.cfg.CRL, list)
		if err := r.Reload(); err != nil || r.Status()[0].Err != nil || r.Status()[1].Err != nil {
			t.Fatalf("%s: corrected, yet %v", name, err)
		}
	}
}

var (
	partial = x509.RevocationList{ExtraExtensions: []pkix.Extension{
		{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: []byte{0x30, 0}},
	}}
	indirect = x509.RevocationList{RevokedCertificateEntries: []x509.RevocationListEntry{{
		SerialNumber: big.NewInt(5), RevocationTime: time.Unix(1e9, 0),
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 29}, Critical: true, Value: []byte{0x30, 0}}},
	}}}
)

func TestNewReloaderReportsAllTogether(t *testing.T) {
	s := newSite(t)
	s.write(s.cfg.Certificate, []byte("x"))
	s.write(s.cfg.ClientCA, []byte("x"))
	_, err := pki.NewReloader(s.cfg)
	if err == nil || !strings.Contains(err.Error(), "server certificate") || !strings.Contains(err.Error(), "client authorities") {
		t.Errorf("%v", err)
	}
	a := newAuthority(t)
	for name, cfg := range map[string]pki.ReloaderConfig{
		"nothing":      {},
		"half a pair":  {Certificate: "x", Authority: a},
		"no names":     {Authority: a},
		"no authority": {Names: []string{"x"}, ClientCA: "x"},
	} {
		if _, err := pki.NewReloader(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestIssuedServerCertificate(t *testing.T) {
	a := newAuthority(t)
	r := must[*pki.Reloader](t)(pki.NewReloader(pki.ReloaderConfig{Authority: a, Names: []string{"broker.example", "127.0.0.1"}, Log: testLog(t)}))
	s := &site{authority: a}
	if _, err := connect(t, r.Mutual(), s.clientConfig(client(t, a))); err != nil {
		t.Error(err)
	}
	// A new agent knows the pin alone and needs the authority from the chain.
	joining := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}
	e, err := connect(t, r.ServerOnly(), joining)
	if err != nil {
		t.Fatal(err)
	}
	chain := e.ConnectionState().PeerCertificates
	if len(chain) != 2 || pki.PinOf(chain[1]) != a.Pin() || chain[0].VerifyHostname("127.0.0.1") != nil {
		t.Errorf("a chain of %d", len(chain))
	}
	joining.MaxVersion = tls.VersionTLS12
	if _, err := connect(t, r.ServerOnly(), joining); err == nil {
		t.Error("the enrollment listener takes TLS 1.2")
	}
}

// The enrollment listener's chain is left alone where the built-in authority
// did not sign it.
func TestForeignServerCertificateIsServedAsItIs(t *testing.T) {
	s := newSite(t)
	s.cfg.Authority = newAuthority(t)
	e, err := connect(t, s.reloader().ServerOnly(), s.clientConfig())
	if err != nil {
		t.Fatal(err)
	}
	if n := len(e.ConnectionState().PeerCertificates); n != 1 {
		t.Errorf("a chain of %d", n)
	}
}

func TestIssuedServerCertificateIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t)
		r := must[*pki.Reloader](t)(pki.NewReloader(pki.ReloaderConfig{Authority: a, Names: []string{"broker.example"}, Interval: time.Hour}))
		ctx, cancel := context.WithCancel(t.Context())
		stopped := make(chan error, 1)
		go func() { stopped <- r.Run(ctx) }()
		first := r.Status()[0]
		for day := range 30 {
			pass(24 * time.Hour)
			synctest.Wait()
			if s := r.Status()[0]; s.Err != nil || time.Until(s.Expires) < 48*time.Hour {
				t.Fatalf("on day %d: %+v", day, s)
			}
		}
		if !r.Status()[0].Loaded.After(first.Loaded) {
			t.Error("never renewed")
		}
		cancel()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}

func TestRunNoticesChanges(t *testing.T) {
	s := newSite(t)
	revoked := client(t, s.authority).Leaf
	list := newCRL(t, s.authority, x509.RevocationList{}, revoked.SerialNumber)
	s.cfg.Interval = time.Millisecond // real files, so real time: the shortest wait
	r := s.reloader()
	told := make(chan struct{}, 1)
	defer r.Observe(func() { told <- struct{}{} })()
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- r.Run(ctx) }()
	s.write(s.cfg.CRL, list)
	<-told
	if !r.Revoked(pki.Serial(revoked)) {
		t.Error("the list is not in force when the observer is told")
	}
	cancel()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// A file that is overwritten within the grain of its time stamp looks the same
// from outside.
func TestSecondWriteInTheSameInstant(t *testing.T) {
	s := newSite(t)
	one, two := client(t, s.authority).Leaf, client(t, s.authority).Leaf
	two.SerialNumber.Xor(one.SerialNumber, big.NewInt(1)) // as long as the other
	info := must[os.FileInfo](t)(os.Stat(s.cfg.CRL))
	overwrite := func(cert *x509.Certificate) {
		data := newCRL(t, s.authority, x509.RevocationList{}, cert.SerialNumber)
		// An ECDSA signature varies in length by a few bytes.
		data = append(data, strings.Repeat("\n", 2048-len(data))...)
		if err := os.WriteFile(s.cfg.CRL, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(s.cfg.CRL, info.ModTime(), info.ModTime()); err != nil {
			t.Fatal(err)
		}
	}
	overwrite(one)
	r := s.reloader()
	overwrite(two)
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	if !r.Revoked(pki.Serial(two)) || r.Revoked(pki.Serial(one)) {
		t.Error("the second write was missed")
	}
}

// A revoked intermediate takes the certificates below it along.
func TestRevokedIntermediate(t *testing.T) {
	rootKey, middleKey, leafKey := newKey(t), newKey(t), newKey(t)
	make := func(template, parent *x509.Certificate, key, signer crypto.Signer) *x509.Certificate {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer))
		return must[*x509.Certificate](t)(x509.ParseCertificate(der))
	}
	rootTemplate := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	root := make(rootTemplate, rootTemplate, rootKey, rootKey)
	middle := make(&x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "middle"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, root, middleKey, rootKey)
	leaf := make(&x509.Certificate{SerialNumber: big.NewInt(3), URIs: []*url.URL{must[*url.URL](t)(url.Parse(agentURI))},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, middle, leafKey, middleKey)
	list := func(serials ...int64) []byte {
		template := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}
		for _, n := range serials {
			template.RevokedCertificateEntries = append(template.RevokedCertificateEntries,
				x509.RevocationListEntry{SerialNumber: big.NewInt(n), RevocationTime: time.Now()})
		}
		return must[[]byte](t)(x509.CreateRevocationList(rand.Reader, template, root, rootKey)) // DER
	}
	s := newSite(t)
	s.write(s.cfg.ClientCA, pki.EncodeCertificates(root))
	s.write(s.cfg.CRL, list(9))
	r := s.reloader()
	cfg := s.clientConfig(tls.Certificate{Certificate: [][]byte{leaf.Raw, middle.Raw}, PrivateKey: leafKey})
	if _, err := connect(t, r.Mutual(), cfg); err != nil {
		t.Fatal(err)
	}
	s.write(s.cfg.CRL, list(2))
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	if _, err := connect(t, r.Mutual(), cfg); err == nil || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("%v", err)
	}
}

// What has run out of date while nobody replaced it stays in force, and says so.
func TestStatusTellsOfAge(t *testing.T) {
	s := newSite(t)
	s.write(s.cfg.CRL, newCRL(t, s.authority, x509.RevocationList{NextUpdate: time.Now().Add(-time.Minute)}))
	r := s.reloader()
	if status := r.Status()[1]; status.Err == nil || !strings.Contains(status.Err.Error(), "next update") {
		t.Errorf("%+v", status)
	}
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t)
		r := must[*pki.Reloader](t)(pki.NewReloader(pki.ReloaderConfig{Authority: a, Names: []string{"x"}}))
		pass(8 * 24 * time.Hour) // Run is not running
		if status := r.Status()[0]; status.Err == nil || !strings.Contains(status.Err.Error(), "past its end") {
			t.Errorf("%+v", status)
		}
	})
}

// Without the callback the outer configurations must let nobody in.
func TestOuterConfigurationIsStrict(t *testing.T) {
	s := newSite(t)
	cfg := s.reloader().Mutual()
	cfg.GetConfigForClient = nil
	cfg.Certificates = []tls.Certificate{must[tls.Certificate](t)(tls.LoadX509KeyPair(s.cfg.Certificate, s.cfg.Key))}
	if _, err := connect(t, cfg, s.clientConfig(client(t, s.authority))); err == nil {
		t.Error("a client was let in")
	}
}
