package server

import (
	"context"
	"crypto/x509"
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

// reporting tells the listener which handshakes have succeeded, and calls what
// came of them.
type reporting struct {
	credentials.TransportCredentials
}

// ServerHandshake implements credentials.TransportCredentials.
func (r reporting) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secured, info, err := r.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return secured, info, err
	}
	admission.Established(raw)
	if tls, ok := info.(credentials.TLSInfo); ok {
		info = &connection{CommonAuthInfo: tls.CommonAuthInfo, chains: tls.State.VerifiedChains}
	}
	return secured, info, nil
}

// Clone implements credentials.TransportCredentials.
func (r reporting) Clone() credentials.TransportCredentials {
	return reporting{r.TransportCredentials.Clone()}
}
