package client

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
)

// loadTLS reads the files as they are now. The thumbprint is of our own
// certificate, SHA-256 of its DER; empty where a callback will choose it.
func (c Config) loadTLS() (*tls.Config, [sha256.Size]byte, error) {
	var (
		thumbprint [sha256.Size]byte
		problems   []error
	)
	conf, err := c.serverTLS()
	if err != nil {
		problems = append(problems, err)
	}
	if c.CertFile != "" || c.KeyFile != "" {
		p, err := loadPair(c.CertFile, c.KeyFile)
		if err != nil {
			problems = append(problems, err)
		}
		conf.Certificates, conf.GetClientCertificate = []tls.Certificate{p.certificate}, nil
	}
	if len(conf.Certificates) == 0 && conf.GetClientCertificate == nil {
		problems = append(problems, errors.New("no client certificate: name its file and its key's"))
	}
	if len(conf.Certificates) > 0 && len(conf.Certificates[0].Certificate) > 0 {
		thumbprint = sha256.Sum256(conf.Certificates[0].Certificate[0])
	}
	return conf, thumbprint, errors.Join(problems...)
}

// serverTLS is what verifies the broker, with our own certificate as far as TLS
// has one. It is never nil.
func (c Config) serverTLS() (*tls.Config, error) {
	conf := &tls.Config{}
	if c.TLS != nil {
		conf = c.TLS.Clone()
	}
	conf.MinVersion = max(conf.MinVersion, tls.VersionTLS13)
	if c.ServerName != "" {
		conf.ServerName = c.ServerName
	}
	var err error
	if c.CAFile != "" {
		conf.RootCAs, err = loadPool(c.CAFile)
	}
	return conf, err
}

func loadPool(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("authority %s: there is no certificate (PEM) in it", file)
	}
	return pool, nil
}

// watchedTLS is TLS that remembers why a connection failed. gRPC passes such
// errors on as text alone, from which nobody can tell a certificate of the wrong
// authority from a network that is away.
type watchedTLS struct {
	credentials.TransportCredentials
	fault *atomic.Pointer[error]
}

func (w watchedTLS) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := w.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err != nil {
		w.fault.Store(&err)
		return nil, nil, err
	}
	w.fault.Store(nil) // that of another address, perhaps
	return &watchedConn{Conn: conn, fault: w.fault}, info, nil
}

func (w watchedTLS) Clone() credentials.TransportCredentials {
	return watchedTLS{w.TransportCredentials.Clone(), w.fault}
}

// lastWords is how long a connection that cannot be written to any more is
// listened to.
const lastWords = 100 * time.Millisecond

// watchedConn remembers an alert that the broker sent. In TLS 1.3 the refusal of
// a client certificate arrives only after the handshake, with the first read.
type watchedConn struct {
	net.Conn
	fault *atomic.Pointer[error]
}

func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	var remote *net.OpError
	if err != nil && errors.As(err, &remote) && remote.Op == "remote error" {
		c.fault.Store(&err)
	}
	return n, err
}

// Write looks for an alert where it fails: the broker may have said why it hung
// up, and gRPC does not read once it cannot write.
func (c *watchedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err != nil && c.SetReadDeadline(time.Now().Add(lastWords)) == nil {
		// Whatever else may come is of no use on this connection.
		_, _ = c.Read(make([]byte, 1))
	}
	return n, err
}
