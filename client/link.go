package client

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpproxy"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

const (
	// connectTimeout bounds the connection to one address, handshake included.
	connectTimeout = 10 * time.Second
	// callTimeout bounds a unary call, connecting included.
	callTimeout = 20 * time.Second
	// A ping after twenty quiet seconds that is not answered in eight ends the
	// connection: half-open TCP is noticed within thirty.
	pingAfter   = 20 * time.Second
	pingTimeout = 8 * time.Second
	// window is the flow-control window of the stream and the connection. A
	// static one turns the bandwidth estimator off, whose pings would double
	// the broker's work for each push.
	window = 64 << 10
	// What a broker may send at once. The largest answer is a hundred
	// credentials with session tokens of a few kilobytes.
	longestReceived = 4 << 20
	longestHeaders  = 64 << 10
)

// link is one connection to one broker, made for one attempt and then closed.
// So the certificate is read anew each time, and the brokers' order is kept.
// Its thumbprint is that of our own certificate, where we have one.
type link struct {
	conn       *grpc.ClientConn
	thumbprint [sha256.Size]byte
	fault      atomic.Pointer[error]
}

// dial prepares a connection with the certificate as it is now; the first call
// opens it.
func (c Config) dial(address string) (*link, error) {
	conf, thumbprint, err := c.loadTLS()
	if err != nil {
		// The files were good when the source began.
		return nil, &Error{Message: err.Error(), Transient: true, cause: err}
	}
	l, err := openLink(address, conf, c.Dial)
	if err != nil {
		return nil, err
	}
	l.thumbprint = thumbprint
	return l, nil
}

// dialWith is dial with a certificate that was read before.
func (c Config) dialWith(p pair, address string) (*link, error) {
	conf, err := c.serverTLS()
	if err != nil {
		return nil, &Error{Message: err.Error(), Transient: true, cause: err}
	}
	conf.Certificates, conf.GetClientCertificate = []tls.Certificate{p.certificate}, nil
	l, err := openLink(address, conf, c.Dial)
	if err != nil {
		return nil, err
	}
	l.thumbprint = p.thumbprint
	return l, nil
}

// openLink prepares a connection. A nil dialer means TCP.
func openLink(address string, conf *tls.Config, dialer func(context.Context, string) (net.Conn, error)) (*link, error) {
	l := &link{}
	if dialer == nil {
		if err := checkProxy(address); err != nil {
			return nil, err
		}
	}
	target := "dns:///" + address
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(watchedTLS{credentials.NewTLS(conf), &l.fault}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingAfter, Timeout: pingTimeout}),
		grpc.WithStaticStreamWindowSize(window),
		grpc.WithStaticConnWindowSize(window),
		grpc.WithMaxHeaderListSize(longestHeaders),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(longestReceived)),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: connectTimeout}),
		// The source owns all retries, and a service config from DNS none.
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableHealthCheck(),
		grpc.WithIdleTimeout(0),
	}
	if dialer != nil {
		target = "passthrough:///" + address
		options = append(options, grpc.WithContextDialer(dialer))
	}
	var err error
	if l.conn, err = grpc.NewClient(target, options...); err != nil {
		return nil, &Error{Message: err.Error(), cause: err}
	}
	return l, nil
}

// checkProxy refuses a proxy setting that gRPC would misread or repeat in an
// error, the proxy's password included. It speaks CONNECT in clear, whatever the
// scheme; what is inside is TLS to the broker.
func checkProxy(address string) error {
	setting := httpproxy.FromEnvironment()
	text := setting.HTTPSProxy
	if text != "" && !strings.Contains(text, "://") {
		text = "http://" + text
	}
	parsed, err := url.Parse(text)
	if err == nil {
		var proxy *url.URL
		if proxy, err = setting.ProxyFunc()(&url.URL{Scheme: "https", Host: address}); proxy == nil && err == nil {
			return nil // none, or not for this address
		}
	}
	if err != nil || parsed.Scheme != "http" || parsed.Hostname() == "" {
		return &Error{Message: "HTTPS_PROXY cannot be used: want http://host:port"}
	}
	return nil
}

// close ends the connection and with it every call on it.
func (l *link) close() {
	// Its only error says that it was closed before.
	_ = l.conn.Close()
}

// explain turns the error of a call on this link into an Error. Where the source
// itself cancelled the call, that cause is the explanation.
func (l *link) explain(ctx context.Context, err error) *Error {
	var own *Error
	if errors.As(context.Cause(ctx), &own) {
		return own
	}
	var fault error
	if p := l.fault.Load(); p != nil {
		fault = *p
	}
	return fromStatus(status.Convert(err), fault)
}

func (l *link) sessions() stokerv1.SessionServiceClient {
	return stokerv1.NewSessionServiceClient(l.conn)
}

func (l *link) credentials() stokerv1.CredentialServiceClient {
	return stokerv1.NewCredentialServiceClient(l.conn)
}

func (l *link) delegations() stokerv1.DelegationServiceClient {
	return stokerv1.NewDelegationServiceClient(l.conn)
}

// authorized adds the authorization to a call's metadata.
func authorized(ctx context.Context, authorization string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", authorization)
}
