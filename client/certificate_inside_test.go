package client

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

// signer is an authority for tests.
type signer struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newTestKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newSigner(t testing.TB) signer {
	t.Helper()
	key := newTestKey(t)
	template := template()
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	s := signer{key: key, certificate: template}
	s.certificate = s.sign(t, template, key.Public())
	return s
}

func template() *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err)
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
}

func (s signer) sign(t testing.TB, c *x509.Certificate, key crypto.PublicKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, c, s.certificate, key, s.key)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func agentURI(t testing.TB, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// leaf signs an agent's certificate, changed.
func (s signer) leaf(t testing.TB, key crypto.PublicKey, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	c := template()
	c.URIs = []*url.URL{agentURI(t, "spiffe://stoker.test/tenant/acme/agent/nas-1")}
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	c.KeyUsage = x509.KeyUsageDigitalSignature
	if change != nil {
		change(c)
	}
	return s.sign(t, c, key)
}

func TestAcceptChecksTheCertificate(t *testing.T) {
	authority := newSigner(t)
	asked, err := newRequest()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*x509.Certificate)
		says   string // empty: it is accepted
	}{
		"as it should be": {nil, ""},
		"our clock behind": {func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(30*time.Minute), time.Now().Add(50*time.Minute)
		}, ""},
		"our clock ahead": {func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-50*time.Minute), time.Now().Add(-30*time.Minute)
		}, ""},
		"for servers":    {func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, "key usage"},
		"no identity":    {func(c *x509.Certificate) { c.URIs = nil }, "one SPIFFE ID"},
		"two identities": {func(c *x509.Certificate) { c.URIs = append(c.URIs, c.URIs[0]) }, "one SPIFFE ID"},
		"a web page":     {func(c *x509.Certificate) { c.URIs = []*url.URL{agentURI(t, "https://stoker.test/")} }, "one SPIFFE ID"},
		"an authority":   {func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }, "authority's"},
		"ended": {func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-50*time.Hour), time.Now().Add(-25*time.Hour)
		}, "expired"},
		"not yet begun": {func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(25*time.Hour), time.Now().Add(50*time.Hour)
		}, "not yet valid"},
	} {
		t.Run(name, func(t *testing.T) {
			leaf := authority.leaf(t, asked.private.Public(), c.change)
			got, err := asked.accept(&stokerv1.CertificateBundle{
				CertificatePem: encodeCertificates([]*x509.Certificate{leaf}),
				AuthorityPem:   encodeCertificates([]*x509.Certificate{authority.certificate}),
			}, func(*x509.Certificate) bool { return true })
			switch {
			case c.says == "" && (err != nil || !got.leaf.Equal(leaf)):
				t.Errorf("refused: %v", err)
			case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
				t.Errorf("got %v", err)
			}
		})
	}
	leaf := authority.leaf(t, asked.private.Public(), nil)
	if _, err := asked.accept(&stokerv1.CertificateBundle{
		CertificatePem: encodeCertificates([]*x509.Certificate{leaf}),
		AuthorityPem:   encodeCertificates([]*x509.Certificate{authority.certificate}),
	}, func(*x509.Certificate) bool { return false }); err == nil {
		t.Error("accepted from an authority that is not trusted")
	}
}

func TestVerifyPinned(t *testing.T) {
	ours, theirs := newSigner(t), newSigner(t)
	pin := pinOf(ours.certificate)
	server := func(s signer, change func(*x509.Certificate)) *x509.Certificate {
		return s.leaf(t, newTestKey(t).Public(), func(c *x509.Certificate) {
			c.URIs, c.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
			c.DNSNames, c.IPAddresses = []string{"broker.test"}, []net.IP{net.IPv4(192, 0, 2, 1)}
			if change != nil {
				change(c)
			}
		})
	}
	good := server(ours, nil)
	// Their certificate around our authority's key.
	around := template()
	around.IsCA, around.BasicConstraintsValid, around.KeyUsage = true, true, x509.KeyUsageCertSign
	wrapped := theirs.sign(t, around, ours.key.Public())
	// Our authority's key in what is no authority.
	plainKey := ours.leaf(t, ours.key.Public(), nil)
	for name, c := range map[string]struct {
		chain  []*x509.Certificate
		name   string
		wrong  bool // ErrWrongBroker
		refuse bool
	}{
		"as it should be":             {chain: []*x509.Certificate{good, ours.certificate}, name: "broker.test"},
		"by address":                  {chain: []*x509.Certificate{good, ours.certificate}, name: "192.0.2.1"},
		"with others between":         {chain: []*x509.Certificate{good, theirs.certificate, ours.certificate}, name: "broker.test"},
		"another name":                {chain: []*x509.Certificate{good, ours.certificate}, name: "other.test", refuse: true},
		"another address":             {chain: []*x509.Certificate{good, ours.certificate}, name: "192.0.2.2", refuse: true},
		"no name":                     {chain: []*x509.Certificate{server(ours, func(c *x509.Certificate) { c.DNSNames = nil }), ours.certificate}, name: "broker.test", refuse: true},
		"nothing":                     {name: "broker.test", refuse: true, wrong: true},
		"without the authority":       {chain: []*x509.Certificate{good}, name: "broker.test", refuse: true, wrong: true},
		"another authority":           {chain: []*x509.Certificate{server(theirs, nil), theirs.certificate}, name: "broker.test", refuse: true, wrong: true},
		"our authority shown by them": {chain: []*x509.Certificate{server(theirs, nil), theirs.certificate, ours.certificate}, name: "broker.test", refuse: true, wrong: true},
		"wrapped key":                 {chain: []*x509.Certificate{good, wrapped}, name: "broker.test", refuse: true, wrong: true},
		"key of a leaf":               {chain: []*x509.Certificate{good, plainKey}, name: "broker.test", refuse: true, wrong: true},
		"an agent as broker":          {chain: []*x509.Certificate{ours.leaf(t, newTestKey(t).Public(), func(c *x509.Certificate) { c.DNSNames = []string{"broker.test"} }), ours.certificate}, name: "broker.test", refuse: true},
		"ended":                       {chain: []*x509.Certificate{server(ours, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), ours.certificate}, name: "broker.test", refuse: true},
	} {
		t.Run(name, func(t *testing.T) {
			err := verifyPinned(c.chain, pin, c.name)
			if (err != nil) != c.refuse || errors.Is(err, ErrWrongBroker) != c.wrong {
				t.Errorf("got %v", err)
			}
		})
	}
}

// The time is the same whenever it is drawn, uniform over many certificates, and
// never out of bounds.
func TestRenewTime(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const life, count = 1000 * time.Hour, 2000
	var buckets [10]int
	for i := range count {
		c := &x509.Certificate{NotBefore: begin, NotAfter: begin.Add(life), Raw: big.NewInt(int64(i)).Bytes()}
		at := renewTime(c)
		if !at.Equal(renewTime(c)) {
			t.Fatal("drawn twice")
		}
		part := float64(at.Sub(begin)) / float64(life)
		place := (part - (renewalPart - renewalSpread)) / (2 * renewalSpread)
		if place < 0 || place > 1 {
			t.Fatalf("at %f of the life", part)
		}
		buckets[min(int(place*10), 9)]++
	}
	for i, n := range buckets {
		if n < count/20 || n > count*3/20 {
			t.Errorf("tenth %d has %d of %d", i, n, count)
		}
	}
}

// The keeper goes by the broker's clock, and by whichever of this machine's two
// has run farther: a timer for weeks would be off after each of these.
func TestDueThroughClockSteps(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	due, end := begin.Add(20*24*time.Hour), begin.Add(30*24*time.Hour)
	for name, c := range map[string]struct {
		wall    time.Duration // since the broker last told its time
		up      time.Duration
		skew    time.Duration // this machine's clock to the broker's
		unknown bool          // the broker has not told its time
		want    bool
	}{
		"before":                          {wall: 19 * 24 * time.Hour, up: 19 * 24 * time.Hour},
		"then":                            {wall: 20 * 24 * time.Hour, up: 20 * 24 * time.Hour, want: true},
		"after a suspension":              {wall: 21 * 24 * time.Hour, up: time.Minute, want: true},
		"after the clock was set back":    {wall: -time.Hour, up: 21 * 24 * time.Hour, want: true},
		"with a clock a month ahead":      {skew: 30 * 24 * time.Hour, wall: time.Hour, up: time.Hour},
		"with a clock a month behind":     {skew: -30 * 24 * time.Hour, wall: 21 * 24 * time.Hour, up: 21 * 24 * time.Hour, want: true},
		"by this machine's clock alone":   {unknown: true, wall: 21 * 24 * time.Hour, want: true},
		"not yet by this machine's":       {unknown: true, wall: time.Hour},
		"too late, the certificate ended": {wall: 31 * 24 * time.Hour, up: 31 * 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSource(Config{})
			at := reading{wall: begin.Add(c.skew)}
			s.clock.read = func() reading { return at }
			if !c.unknown {
				s.clock.set(begin)
			}
			at = reading{wall: begin.Add(c.skew + c.wall), up: c.up}
			k := &keeper{source: s, renews: true, present: Certificate{NotBefore: begin, RenewTime: due, Expires: end}}
			if got := k.due(); got != c.want {
				t.Errorf("due: %v", got)
			}
			if wait := k.wait(); wait > lookEvery {
				t.Errorf("it looks again in %v", wait)
			}
		})
	}
}

func TestRenewalDelay(t *testing.T) {
	now := time.Now()
	k := &keeper{source: newSource(Config{}), pace: newPace(), present: Certificate{Expires: now.Add(10 * 24 * time.Hour)}}
	passing, final := &Error{Transient: true}, &Error{Reason: ReasonAgentDisabled}
	most, least := func(d time.Duration) time.Duration { return d }, func(time.Duration) time.Duration { return 0 }
	for _, c := range []struct {
		failures int
		problem  *Error
		left     time.Duration
		least    time.Duration
		most     time.Duration
	}{
		{0, passing, 240 * time.Hour, 30 * time.Second, time.Minute},
		{1, passing, 240 * time.Hour, time.Minute, 2 * time.Minute},
		{5, passing, 240 * time.Hour, 16 * time.Minute, 32 * time.Minute},
		{6, passing, 240 * time.Hour, 30 * time.Minute, time.Hour},
		{500, passing, 240 * time.Hour, 30 * time.Minute, time.Hour},
		{0, final, 240 * time.Hour, 30 * time.Minute, time.Hour},
		{6, passing, 100 * time.Minute, 5 * time.Minute, 10 * time.Minute},
		{6, final, time.Minute, 5 * time.Second, 10 * time.Second},
		{0, &Error{Transient: true, RetryAfter: 20 * time.Minute}, 240 * time.Hour, 20*time.Minute + 30*time.Second, 21 * time.Minute},
		{0, &Error{Transient: true, RetryAfter: 50 * time.Minute}, time.Hour, 30 * time.Minute, 30 * time.Minute},
		{0, &Error{Transient: true, RetryAfter: 1000 * time.Hour}, 240 * time.Hour, time.Hour + 30*time.Second, time.Hour + time.Minute},
	} {
		k.failures, k.present.Expires = c.failures, now.Add(c.left)
		k.source.clock.read = func() reading { return reading{wall: now} }
		k.pace.random = least
		if got := k.delay(c.problem); got != c.least {
			t.Errorf("%+v: at least %v", c, got)
		}
		k.pace.random = most
		if got := k.delay(c.problem); got != c.most {
			t.Errorf("%+v: at most %v", c, got)
		}
	}
}
