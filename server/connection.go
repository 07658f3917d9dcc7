package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"sync"
	"unique"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/stokerd/stoker/server/internal/admission"
	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/reason"
)

// connection is what calls learn of the connection that they come by. It takes
// the place of grpc's TLSInfo, which keeps the whole state of the handshake,
// and who is at the other end is read from the certificate once and not with
// each call.
type connection struct {
	credentials.CommonAuthInfo
	// login remembers the access token of unary calls.
	login authn.Memory
	// spare: it has one of the places that are kept in reserve.
	spare bool

	once sync.Once
	// chains are the verified ones, until the peer is known.
	chains [][]*x509.Certificate
	peer   authn.Peer
	err    error
}

// AuthType implements credentials.AuthInfo.
func (*connection) AuthType() string { return "tls" }

// connectionOf gives the connection of a call.
func connectionOf(ctx context.Context) (*connection, bool) {
	from, ok := peer.FromContext(ctx)
	if !ok {
		return nil, false
	}
	c, ok := from.AuthInfo.(*connection)
	return c, ok
}

// identify reads the identity off the certificate that the connection was
// opened with. That it chains to a trusted authority was the handshake's to
// check; a connection without a verified chain gets nowhere.
func (c *connection) identify(trustDomain string, address net.Addr) (authn.Peer, error) {
	c.once.Do(func() {
		if len(c.chains) == 0 || len(c.chains[0]) == 0 {
			c.err = reason.New(reason.CertificateRequired, "present a client certificate")
			return
		}
		if c.peer, c.err = authn.Identify(trustDomain, c.chains[0][0]); c.err == nil {
			// Those of all agents are the same.
			c.peer.Certificate.Vouchers = unique.Make(pki.Vouchers(c.chains)).Value()
		}
		c.peer.Address = address.String()
		c.chains = nil
	})
	return c.peer, c.err
}

// security is how a listener's connections are secured. Beside what grpc's
// own credentials do it tells the listener which handshakes have succeeded;
// and it copies no configuration for each connection.
type security struct{ config *tls.Config }

var errNoClient = errors.New("these credentials are a server's")

// ServerHandshake implements credentials.TransportCredentials.
func (s security) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secured := tls.Server(raw, s.config)
	// Its deadline is grpc's ConnectionTimeout.
	if err := secured.Handshake(); err != nil {
		_ = secured.Close()
		return nil, nil, err
	}
	state := secured.ConnectionState()
	if state.NegotiatedProtocol == "" {
		_ = secured.Close()
		return nil, nil, errors.New("the client does not ask for HTTP/2")
	}
	admission.Established(raw)
	return secured, &connection{
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		chains:         state.VerifiedChains,
		spare:          admission.Spare(raw),
	}, nil
}

// ClientHandshake implements credentials.TransportCredentials.
func (s security) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errNoClient
}

// Info implements credentials.TransportCredentials.
func (s security) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone implements credentials.TransportCredentials.
func (s security) Clone() credentials.TransportCredentials { return s }

// OverrideServerName implements credentials.TransportCredentials.
func (s security) OverrideServerName(string) error { return errNoClient }
