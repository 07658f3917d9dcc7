package client_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/client/clienttest"
	"github.com/stokerd/stoker/internal/polling"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

// enroll enrolls into a directory of its own.
func enroll(t *testing.T, broker *clienttest.Broker) (client.Files, client.Certificate) {
	t.Helper()
	config := broker.Enrollment(t.TempDir())
	got, err := client.Enroll(t.Context(), broker.Invite(), config)
	if err != nil {
		t.Fatal(err)
	}
	return config.Files, got
}

// kept is the configuration of an agent with its certificate in files.
func kept(broker *clienttest.Broker, files client.Files) client.Config {
	config := broker.Config()
	config.TLS = nil
	config.CAFile, config.CertFile, config.KeyFile = files.Authority, files.Certificate, files.Key
	return config
}

// names lists a directory.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func TestEnroll(t *testing.T) {
	for name, options := range map[string][]clienttest.Option{
		"over TCP":  {clienttest.WithEnrollment()},
		"in memory": {clienttest.WithEnrollment(), clienttest.InMemory()},
	} {
		t.Run(name, func(t *testing.T) {
			broker := clienttest.New(t, options...)
			files, got := enroll(t, broker)
			if got.SPIFFEID != clienttest.AgentID || got.RenewTime.Before(got.NotBefore) || got.RenewTime.After(got.Expires) {
				t.Errorf("got %+v", got)
			}
			if read, err := client.ReadCertificate(files); err != nil || read != got {
				t.Errorf("the files have %+v, %v", read, err)
			}
			if list := names(t, filepath.Dir(files.Key)); !slices.Equal(list, []string{".agent.key.lock", "agent.key", "agent.pem", "ca.pem"}) {
				t.Errorf("files %v", list)
			}
			for file, mode := range map[string]fs.FileMode{files.Key: 0o600, files.Certificate: 0o644, files.Authority: 0o644} {
				if info, err := os.Stat(file); err != nil || runtime.GOOS != "windows" && info.Mode() != mode {
					t.Errorf("%s: %v, %v", file, info.Mode(), err)
				}
			}
			source := start(t, kept(broker, files))
			if err := source.Wait(t.Context()); err != nil {
				t.Error(err)
			}
			// The files are looked at beside the stream, and perhaps later.
			polling.Until(t.Context(), t, "the look at the files", func() bool { return source.Status().Certificate.Serial != "" })
			if status := source.Status(); status.Identity.CertificateSerial != got.Serial || status.Certificate.Serial != got.Serial || status.CertificateErr != nil {
				t.Errorf("status %+v", status)
			}
		})
	}
}

// Nothing that is there is replaced without being told to; and if told to, the
// old pair is in use until the new one is there.
func TestEnrollReplaces(t *testing.T) {
	broker := clienttest.New(t, clienttest.WithEnrollment(), clienttest.InMemory())
	for _, name := range []string{"agent.key", "agent.pem", "ca.pem"} {
		config := broker.Enrollment(t.TempDir())
		file := filepath.Join(filepath.Dir(config.Files.Key), name)
		if err := os.WriteFile(file, []byte("dear"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := client.Enroll(t.Context(), broker.Invite(), config)
		if !errors.Is(err, client.ErrFileExists) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", name, err)
		}
		if text, err := os.ReadFile(file); err != nil || string(text) != "dear" {
			t.Errorf("%s is %q, %v", name, text, err)
		}
		if list := names(t, filepath.Dir(file)); !slices.Equal(list, []string{".agent.key.lock", name}) {
			t.Errorf("left: %v", list)
		}
		config.Replace = true
		if _, err := client.Enroll(t.Context(), broker.Invite(), config); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := client.ReadCertificate(config.Files); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := broker.SignedCertificates(); got != 3 {
		t.Errorf("%d certificates were signed", got)
	}
}

func TestEnrollReplacesAPair(t *testing.T) {
	broker := clienttest.New(t, clienttest.WithEnrollment(), clienttest.InMemory())
	files, first := enroll(t, broker)
	before, err := os.ReadFile(files.Key)
	if err != nil {
		t.Fatal(err)
	}
	config := broker.Enrollment(filepath.Dir(files.Key))
	config.Replace = true
	broker.RefuseCertificates(&client.Error{Reason: client.ReasonAgentDisabled, Message: "ask the provider"})
	if _, err := client.Enroll(t.Context(), broker.Invite(), config); client.ReasonOf(err) != client.ReasonAgentDisabled {
		t.Errorf("got %v", err)
	}
	if got, err := client.ReadCertificate(files); err != nil || got != first {
		t.Errorf("after a refusal: %v, %v", got, err)
	}
	broker.RefuseCertificates(nil)
	second, err := client.Enroll(t.Context(), broker.Invite(), config)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := client.ReadCertificate(files); err != nil || got != second || got.Serial == first.Serial {
		t.Errorf("afterwards: %v, %v", got, err)
	}
	after, err := os.ReadFile(files.Key)
	if err != nil || bytes.Equal(before, after) || bytes.Count(after, []byte("BEGIN")) != 1 {
		t.Errorf("the key's file has %d keys, %v", bytes.Count(after, []byte("BEGIN")), err)
	}
}

func TestEnrollRefused(t *testing.T) {
	broker := clienttest.New(t, clienttest.WithEnrollment(), clienttest.InMemory())
	other := clienttest.New(t, clienttest.WithEnrollment(), clienttest.InMemory())
	used := broker.Invite()
	if _, err := client.Enroll(t.Context(), used, broker.Enrollment(t.TempDir())); err != nil {
		t.Fatal(err)
	}
	asked, askedOther := broker.AskedCertificates(), other.AskedCertificates()
	unknown := func(token string) string { // the same pin, another secret
		parts, more := strings.Split(token, "."), strings.Split(other.Invite(), ".")
		parts[2] = more[2]
		return strings.Join(parts, ".")
	}
	for name, c := range map[string]struct {
		token  string
		change func(*client.EnrollConfig)
		reason client.Reason
		is     error
		says   string
	}{
		"used":                {token: used, reason: client.ReasonJoinTokenUsed},
		"unknown":             {token: unknown(broker.Invite()), reason: client.ReasonJoinTokenInvalid},
		"no token":            {token: "", says: "not a join token"},
		"garbage":             {token: "stoker-join.CANARY", says: "not a join token"},
		"another broker's":    {token: other.Invite(), is: client.ErrWrongBroker, says: "the broker's certificate cannot be verified"},
		"another name":        {token: broker.Invite(), change: func(c *client.EnrollConfig) { c.ServerName = "elsewhere.test" }, says: "elsewhere.test"},
		"another address":     {token: broker.Invite(), change: func(c *client.EnrollConfig) { c.Address = "192.0.2.1:7444" }, says: "192.0.2.1"},
		"no port":             {token: broker.Invite(), change: func(c *client.EnrollConfig) { c.Address = "broker" }, says: "host:port"},
		"no such directory":   {token: broker.Invite(), change: func(c *client.EnrollConfig) { c.Files = client.FilesIn("/nonexistent") }, is: fs.ErrNotExist},
		"CA in no directory":  {token: broker.Invite(), change: func(c *client.EnrollConfig) { c.Files.Authority = "/nonexistent/ca.pem" }, is: fs.ErrNotExist},
		"no enrollment there": {token: broker.Invite(), change: func(c *client.EnrollConfig) { c.Dial = broker.Dial; c.ServerName = clienttest.Host }, is: client.ErrWrongBroker},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			config := broker.Enrollment(dir)
			if c.change != nil {
				c.change(&config)
			}
			got, err := client.Enroll(t.Context(), c.token, config)
			if err == nil || got != (client.Certificate{}) || client.ReasonOf(err) != c.reason || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, %v", got, err)
			}
			var failed *client.Error
			if errors.As(err, &failed) && failed.Transient {
				t.Errorf("%v is said to pass", err)
			}
			if len(c.token) > 60 && strings.Contains(err.Error(), c.token[40:60]) || strings.Contains(err.Error(), "CANARY") {
				t.Errorf("%v repeats the token", err)
			}
			if list := names(t, dir); len(list) > 1 || len(list) == 1 && list[0] != ".agent.key.lock" {
				t.Errorf("left: %v", list)
			}
		})
	}
	if broker.AskedCertificates() != asked || other.AskedCertificates() != askedOther {
		t.Error("a refused token came as far as the authority")
	}
}

// A token survives whatever can be noticed before it is sent.
func TestEnrollTokenSurvives(t *testing.T) {
	broker := clienttest.New(t, clienttest.WithEnrollment(), clienttest.InMemory())
	token := broker.Invite()
	config := broker.Enrollment(t.TempDir())
	config.ServerName = "elsewhere.test"
	if _, err := client.Enroll(t.Context(), token, config); err == nil {
		t.Fatal("it enrolled")
	}
	config.ServerName = ""
	if _, err := client.Enroll(t.Context(), token, config); err != nil {
		t.Error(err)
	}
}

// forged is a bundle for a key of its own.
func forged(t *testing.T) *stokerv1.CertificateBundle {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return &stokerv1.CertificateBundle{CertificatePem: text, AuthorityPem: text}
}

// tampered are answers that no broker should give, with what is said of each.
func tampered(t *testing.T, broker *clienttest.Broker) map[string]struct {
	change func(*stokerv1.CertificateBundle)
	says   string
} {
	t.Helper()
	other := forged(t)
	own := broker.NewCertificate()
	return map[string]struct {
		change func(*stokerv1.CertificateBundle)
		says   string
	}{
		"nothing":        {func(b *stokerv1.CertificateBundle) { b.Reset() }, "no certificate (PEM)"},
		"no authority":   {func(b *stokerv1.CertificateBundle) { b.AuthorityPem = nil }, "authority: there is no certificate"},
		"no PEM":         {func(b *stokerv1.CertificateBundle) { b.CertificatePem = []byte("CERTIFICATE") }, "no certificate (PEM)"},
		"garbage in PEM": {func(b *stokerv1.CertificateBundle) { b.CertificatePem = pemBlock("CERTIFICATE", []byte("x")) }, "malformed"},
		"a key in it": {func(b *stokerv1.CertificateBundle) {
			b.AuthorityPem = append(pemBlock("PRIVATE KEY", nil), b.AuthorityPem...)
		}, "PRIVATE KEY"},
		"2 MiB":              {func(b *stokerv1.CertificateBundle) { b.CertificatePem = make([]byte, 2<<20) }, "too long"},
		"another key's":      {func(b *stokerv1.CertificateBundle) { b.CertificatePem = pemBlock("CERTIFICATE", own.Certificate[0]) }, "another key"},
		"another authority":  {func(b *stokerv1.CertificateBundle) { b.AuthorityPem = other.AuthorityPem }, "unknown authority"},
		"a leaf's authority": {func(b *stokerv1.CertificateBundle) { b.AuthorityPem = b.CertificatePem }, "the certificate of none"},
	}
}

func pemBlock(kind string, data []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data})
}

func TestEnrollUnusableAnswers(t *testing.T) {
	broker := clienttest.New(t, clienttest.WithEnrollment(), clienttest.InMemory())
	for name, c := range tampered(t, broker) {
		t.Run(name, func(t *testing.T) {
			broker.TamperCertificates(c.change)
			dir := t.TempDir()
			_, err := client.Enroll(t.Context(), broker.Invite(), broker.Enrollment(dir))
			var failed *client.Error
			if !errors.As(err, &failed) || !strings.Contains(err.Error(), "unusable") || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v", err)
			}
			if list := names(t, dir); !slices.Equal(list, []string{".agent.key.lock"}) {
				t.Errorf("left: %v", list)
			}
		})
	}
}

// A broker that never answers is given up, and what was prepared goes away.
func TestEnrollSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.WithEnrollment(), clienttest.InMemory())
		dir := t.TempDir()
		config := broker.Enrollment(dir)
		silent := clienttest.New(t, clienttest.InMemory())
		silent.Hang()
		config.Dial = silent.Dial
		began := time.Now()
		_, err := client.Enroll(t.Context(), broker.Invite(), config)
		var failed *client.Error
		if !errors.As(err, &failed) || !failed.Transient {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took > 25*time.Second {
			t.Errorf("it took %v", took)
		}
		if list := names(t, dir); !slices.Equal(list, []string{".agent.key.lock"}) {
			t.Errorf("left: %v", list)
		}
	})
}
