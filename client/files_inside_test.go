package client

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stokerd/stoker/internal/atomicfile"
)

// newPair makes a certificate of a key, both in PEM.
func newPair(t testing.TB, s signer) (request, []byte) {
	t.Helper()
	asked, err := newRequest()
	if err != nil {
		t.Fatal(err)
	}
	return asked, encodeCertificates([]*x509.Certificate{s.leaf(t, asked.private.Public(), nil)})
}

// install puts a first pair into files.
func install(t testing.TB, s signer, files Files) pair {
	t.Helper()
	asked, certificate := newPair(t, s)
	r, err := files.prepare(asked.key)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.commit(certificate); err != nil {
		t.Fatal(err)
	}
	p, err := loadPair(files.Certificate, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// After a crash between any two steps there is a pair that fits, the old one or
// the new one, and the next start cleans up.
func TestCrashWhileReplacing(t *testing.T) {
	authority := newSigner(t)
	steps := []struct {
		name string
		do   func(r *replacement, certificate []byte) error
		new  bool // afterwards the pair is the new one
	}{
		{"prepare", func(*replacement, []byte) error { return nil }, false},
		{"refill", func(r *replacement, c []byte) error { return r.certificate.Refill(c) }, false},
		{"both keys", func(r *replacement, _ []byte) error { return r.both.Place() }, false},
		{"certificate", func(r *replacement, _ []byte) error { return r.certificate.Place() }, true},
		{"key", func(r *replacement, _ []byte) error { return r.key.Place() }, true},
	}
	for crash := range steps {
		t.Run("after "+steps[crash].name, func(t *testing.T) {
			files := FilesIn(t.TempDir())
			old := install(t, authority, files)
			asked, certificate := newPair(t, authority)
			r, err := files.prepare(asked.key)
			if err != nil {
				t.Fatal(err)
			}
			for _, step := range steps[:crash+1] {
				if err := step.do(r, certificate); err != nil {
					t.Fatal(err)
				}
			}
			if err := r.unlock(); err != nil { // as the system does
				t.Fatal(err)
			}
			p, err := loadPair(files.Certificate, files.Key)
			if err != nil || (p.thumbprint != old.thumbprint) != steps[crash].new {
				t.Fatalf("the pair is new: %v, %v", p.thumbprint != old.thumbprint, err)
			}
			if err := files.tidy(); err != nil {
				t.Fatal(err)
			}
			after, err := loadPair(files.Certificate, files.Key)
			if err != nil || after.thumbprint != p.thumbprint || after.crowded {
				t.Errorf("tidied: %+v, %v", after.crowded, err)
			}
			// Others read it too, then.
			if _, err := tls.LoadX509KeyPair(files.Certificate, files.Key); err != nil {
				t.Error(err)
			}
			entries, err := os.ReadDir(filepath.Dir(files.Key))
			if err != nil || len(entries) != 3 {
				t.Errorf("left: %v, %v", entries, err)
			}
		})
	}
}

func TestPrepare(t *testing.T) {
	authority := newSigner(t)
	files := FilesIn(t.TempDir())
	install(t, authority, files)
	if err := os.Chmod(files.Certificate, 0o640); err != nil {
		t.Fatal(err)
	}
	asked, certificate := newPair(t, authority)
	r, err := files.prepare(asked.key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := files.prepare(asked.key); !errors.Is(err, atomicfile.ErrLocked) {
		t.Errorf("a second one at the same time: %v", err)
	}
	if err := errors.Join(r.commit(certificate), r.abandon(), r.abandon()); err != nil {
		t.Error(err)
	}
	// The mode of the certificate is somebody's choice; the key's is not.
	if info, err := os.Stat(files.Certificate); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if info, err := os.Stat(files.Key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if r, err = files.prepare(asked.key); err != nil {
		t.Fatal(err)
	}
	if err := r.abandon(); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(filepath.Dir(files.Key)); err != nil || len(entries) != 3 {
		t.Errorf("left: %v, %v", entries, err)
	}
	one := Files{Certificate: files.Key, Key: filepath.Join(filepath.Dir(files.Key), "link")}
	if err := os.Link(files.Key, one.Key); err != nil {
		t.Fatal(err)
	}
	for _, f := range []Files{one, {Certificate: files.Key, Key: files.Key}} {
		if _, err := f.prepare(asked.key); !errors.Is(err, errNotOurs) {
			t.Errorf("one file for both: %v", err)
		}
	}
	if err := os.Remove(files.Key); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(files.Key, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := files.prepare(asked.key); !errors.Is(err, errNotOurs) {
		t.Errorf("a directory: %v", err)
	}
}

// What other programs write is read as they mean it.
func TestReadPair(t *testing.T) {
	authority := newSigner(t)
	asked, certificate := newPair(t, authority)
	other, _ := newPair(t, authority)
	ec, err := x509.MarshalECPrivateKey(asked.private)
	if err != nil {
		t.Fatal(err)
	}
	sec1 := pemText("EC PRIVATE KEY", ec)
	for name, c := range map[string]struct {
		certificate, key []byte
		says             string
	}{
		"PKCS #8":              {certificate: certificate, key: asked.key},
		"openssl's":            {certificate: certificate, key: append(pemText("EC PARAMETERS", []byte{6, 0}), sec1...)},
		"the second of two":    {certificate: certificate, key: append(bytes.Clone(other.key), asked.key...)},
		"the first of two":     {certificate: certificate, key: append(bytes.Clone(asked.key), other.key...)},
		"behind garbage":       {certificate: certificate, key: append(pemText("PRIVATE KEY", []byte("x")), asked.key...)},
		"both in one file":     {certificate: append(bytes.Clone(certificate), asked.key...), key: append(bytes.Clone(certificate), asked.key...)},
		"another key":          {certificate: certificate, key: other.key, says: "does not match"},
		"no key":               {certificate: certificate, key: certificate, says: "key"},
		"no certificate":       {certificate: asked.key, key: asked.key, says: "certificate"},
		"nothing":              {certificate: nil, key: nil, says: "find any PEM"},
		"a certificate of MiB": {certificate: make([]byte, longestPEM+1), key: asked.key, says: "over"},
	} {
		t.Run(name, func(t *testing.T) {
			files := FilesIn(t.TempDir())
			if err := errors.Join(os.WriteFile(files.Certificate, c.certificate, 0o600), os.WriteFile(files.Key, c.key, 0o600)); err != nil {
				t.Fatal(err)
			}
			p, err := loadPair(files.Certificate, files.Key)
			switch {
			case c.says == "" && (err != nil || p.certificate.Leaf == nil):
				t.Errorf("refused: %v", err)
			case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
				t.Errorf("got %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "BEGIN") {
				t.Errorf("%v shows the file", err)
			}
		})
	}
	for _, missing := range [][2]string{{"", "x"}, {"x", ""}} {
		if _, err := loadPair(missing[0], missing[1]); err == nil || !strings.Contains(err.Error(), "both") {
			t.Errorf("%v: %v", missing, err)
		}
	}
	if _, err := loadPair("/nonexistent", "/nonexistent"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func pemText(kind string, data []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data})
}

// FuzzReadPair: no content of the files makes more of an error than that.
func FuzzReadPair(f *testing.F) {
	asked, certificate := newPair(f, newSigner(f))
	f.Add(certificate, asked.key)
	f.Add([]byte{}, asked.key)
	f.Add(certificate, append(bytes.Clone(asked.key), asked.key...))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, certificate, key []byte) {
		files := FilesIn(dir)
		if err := errors.Join(os.WriteFile(files.Certificate, certificate, 0o600), os.WriteFile(files.Key, key, 0o600)); err != nil {
			t.Fatal(err)
		}
		if p, err := loadPair(files.Certificate, files.Key); err == nil {
			_ = describe(p.certificate.Leaf).String()
		}
	})
}
