package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
	"github.com/stokerd/stoker/server/internal/storage/postgres"
	"github.com/stokerd/stoker/server/internal/storage/sqlite"
)

// Bundle is a client certificate with its key, all in PEM. The key is secret:
// whoever gets the bundle owns it, and the broker keeps no copy.
type Bundle struct {
	Certificate []byte
	Key         []byte
	Authority   []byte
	// SPIFFEID is whom the certificate names.
	SPIFFEID string
	NotAfter time.Time
}

// WriteTo writes NAME.pem, NAME.key (readable by the owner alone) and ca.pem
// into a directory, which is made if it is not there.
func (b Bundle) WriteTo(dir, name string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return errors.Join(
		pki.WriteFile(filepath.Join(dir, name+".key"), b.Key, 0o600),
		pki.WriteFile(filepath.Join(dir, name+".pem"), b.Certificate, 0o644),
		pki.WriteFile(filepath.Join(dir, "ca.pem"), b.Authority, 0o644),
	)
}

// IssueCertificate makes a certificate for an operator or a service with the
// built-in authority. It works on storage directly, whether or not a broker is
// running on it, and leaves an audit record: this is how the first operator
// comes to be. kind is "operator" or "service".
func IssueCertificate(ctx context.Context, c Config, kind, name string, life time.Duration) (b Bundle, err error) {
	if c.TLS != (TLSConfig{}) {
		return Bundle{}, errors.New("the configuration names a PKI of your own under tls; get the certificate from there")
	}
	if life < time.Hour || life > 10*365*24*time.Hour {
		return Bundle{}, fmt.Errorf("a life of %v is out of bounds: from 1h to ten years", life)
	}
	sealer, err := openSealer(c)
	if err != nil {
		return Bundle{}, err
	}
	store, err := openStorage(ctx, c.Storage, slog.New(slog.DiscardHandler))
	if err != nil {
		return Bundle{}, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	authority, err := obtainAuthority(ctx, store, sealer, c.TrustDomain)
	if err != nil {
		return Bundle{}, err
	}
	key, err := pki.NewKey()
	if err != nil {
		return Bundle{}, err
	}
	sign := authority.SignOperator
	if kind == string(pki.Service) {
		sign = authority.SignService
	} else if kind != string(pki.Operator) {
		return Bundle{}, fmt.Errorf("%q is neither operator nor service", kind)
	}
	cert, err := sign(key.Public(), name, life)
	if err != nil {
		return Bundle{}, err
	}
	keyPEM, err := pki.EncodeKey(key)
	if err != nil {
		return Bundle{}, err
	}
	b = Bundle{
		Certificate: pki.EncodeCertificates(cert), Key: []byte(keyPEM.Reveal()), Authority: authority.CertificatePEM(),
		SPIFFEID: cert.URIs[0].String(), NotAfter: cert.NotAfter,
	}
	if _, err := store.RecordCertificate(ctx, storage.Certificate{
		Meta:   storage.Meta{ID: uuid.Must(uuid.NewV7()).String()},
		Serial: pki.Serial(cert), Thumbprint: pki.Thumbprint(cert), Subject: b.SPIFFEID,
		NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
	}); err != nil {
		return Bundle{}, err
	}
	return b, recordLocally(ctx, store, sealer, storage.AuditRecord{
		Event: string(audit.CertificateIssued), Actor: "local", CertificateSerial: pki.Serial(cert),
		CertificateThumbprint: pki.Thumbprint(cert), Expires: cert.NotAfter, Detail: map[string]string{"subject": b.SPIFFEID},
	})
}

// recordLocally writes one audit record from outside of a running broker, in a
// chain of its own.
func recordLocally(ctx context.Context, store storage.Store, sealer *pki.Sealer, rec storage.AuditRecord) error {
	trail, err := openTrail(ctx, store, sealer, audit.Options{}, nil)
	if err != nil {
		return err
	}
	_, err = trail.Append(ctx, rec, audit.NoFence)
	return errors.Join(err, trail.Close(ctx))
}

// openStorage opens the backend that the configuration names.
func openStorage(ctx context.Context, c StorageConfig, log *slog.Logger) (storage.Store, error) {
	// A backend that could not be opened must not become an interface that
	// holds nothing and is not nil.
	if c.Postgres != "" {
		store, err := postgres.Open(ctx, c.Postgres, log)
		if err != nil {
			return nil, err
		}
		return store, nil
	}
	store, err := sqlite.Open(ctx, c.SQLite, log)
	if err != nil {
		return nil, err
	}
	return store, nil
}

// openSink opens the second place that audit records go to, if there is one.
func openSink(c AuditConfig) (*audit.File, error) {
	switch c.Export {
	case "":
		return nil, nil
	case "-":
		return audit.Stdout(), nil
	default:
		return audit.OpenFile(c.Export)
	}
}

// openTrail opens the audit trail under the broker's audit key.
func openTrail(ctx context.Context, store storage.Store, sealer *pki.Sealer, options audit.Options, sink *audit.File) (*audit.Trail, error) {
	key, err := obtainKey(ctx, store, sealer, purposeAudit, randomKey)
	if err != nil {
		return nil, err
	}
	if sink != nil {
		options.Sink = sink
	}
	return audit.Open(ctx, store, secret.New(string(key.private)), options)
}
