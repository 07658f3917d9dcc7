package server

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"runtime"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/tap"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/admission"
)

// The limits of connections and calls. They are no settings, with one
// exception (Config.ConnectionsPerAddress): no agent needs more, and whoever
// sends more is no agent. docs/limits.md has the reason of each.
const (
	// handshakeLimit is how long a connection may take to become one: TLS
	// handshake and HTTP/2 preface together.
	handshakeLimit = 10 * time.Second
	// handshakesPerCore is how many connections of the main listener may be in
	// their handshake for each core: what it finishes in half a second. One that
	// is older than handshakePatience gives way to others that wait.
	handshakesPerCore = 500
	handshakePatience = 2 * time.Second
	// entriesPerCore is how many streams of agents may be at the gate for each
	// core. Those beyond are told when to come back.
	entriesPerCore = 500
	// spareConnections are kept for those who come when all others are taken:
	// operators get through, and agents are told when to come back.
	spareConnections = 64
	// fullFor is how long those agents stay away at least; twice as long at the
	// most. A place becomes free when one of their like goes.
	fullFor = 30 * time.Second
	// defaultPerAddress is how many connections an address may have open: a
	// site of a thousand agents behind one address.
	defaultPerAddress = 1000
	// Each address may open that many at once, and a twentieth of it each
	// second after that, leastPerSecond at the least.
	perSecondShare = 20
	leastPerSecond = 50

	maxMessage    = 256 << 10
	maxHeaderList = 16 << 10
	maxStreams    = 64 // open calls a connection
	// streamWindow is how much a call may send before it is read. It also
	// switches off the estimator that would raise it to megabytes.
	streamWindow = 64 << 10
	// writeBuffer is how much is gathered to be sent at once, in bytes: three
	// credentials with AWS's tokens.
	writeBuffer = 4 << 10
	// unaryLimit is how long a call that is no stream may take, from its
	// headers on: more than two STS calls take at their slowest.
	unaryLimit = time.Minute

	// A connection that has been silent for so long is asked, and closed if
	// it does not answer.
	keepaliveAfter  = time.Minute
	keepaliveAnswer = 20 * time.Second
	// Clients may ask every ten seconds; agents do every twenty.
	keepaliveLeast = 10 * time.Second
	// idleLimit is how long a connection without a call is kept.
	idleLimit = 5 * time.Minute
)

// The enrollment listener takes anybody: what it grants is as little as an
// enrollment needs. All its connections together may hold about 120 MiB.
const (
	enrollPerAddress = 50
	enrollPerSecond  = 5
	enrollTotal      = 500
	enrollHandshakes = 200
	enrollMessage    = 32 << 10
	enrollStreams    = 2
	enrollIdle       = 10 * time.Second
	// enrollAge ends a connection whatever goes on; calls in progress get
	// enrollGrace.
	enrollAge   = time.Minute
	enrollGrace = 10 * time.Second
)

// spareDescriptors is how many of the process's descriptors are left for
// storage, STS, files and metrics: connections never take them.
const spareDescriptors = 256

// mainLimits bounds the connections of the main listener.
func (c Config) mainLimits() admission.Limits {
	total := descriptors() - spareDescriptors
	if c.Enrollment != nil {
		total -= enrollTotal
	}
	return admission.Limits{
		PerAddress: c.ConnectionsPerAddress,
		PerSecond:  float64(max(leastPerSecond, c.ConnectionsPerAddress/perSecondShare)),
		Handshakes: handshakesPerCore * runtime.GOMAXPROCS(0), Patience: handshakePatience,
		// Where descriptors are that few the operating system sets the limit.
		Total:      max(total, spareDescriptors),
		Reserve:    spareConnections,
		Unanswered: keepaliveAnswer,
	}
}

// enrollLimits bounds those of the enrollment listener.
func enrollLimits() admission.Limits {
	return admission.Limits{
		PerAddress: enrollPerAddress, PerSecond: enrollPerSecond,
		Handshakes: enrollHandshakes, Patience: handshakePatience, Total: enrollTotal, Unanswered: keepaliveAnswer,
	}
}

// listen opens a listener that admits connections within limits.
func listen(ctx context.Context, address string, limits admission.Limits, log *slog.Logger) (*admission.Listener, error) {
	var lc net.ListenConfig
	inner, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return admission.New(inner, limits, log)
}

// mainTransport is how the main listener holds connections and calls.
func mainTransport(secured *tls.Config, exempt endless) []grpc.ServerOption {
	return append(transport(secured, maxMessage, maxStreams, keepalive.ServerParameters{MaxConnectionIdle: idleLimit}),
		grpc.InTapHandle(limitUnary(exempt.has, unaryLimit)))
}

// enrollTransport is how the enrollment listener does.
func enrollTransport(secured *tls.Config) []grpc.ServerOption {
	return transport(secured, enrollMessage, enrollStreams, keepalive.ServerParameters{
		MaxConnectionIdle: enrollIdle, MaxConnectionAge: enrollAge, MaxConnectionAgeGrace: enrollGrace,
	})
}

func transport(secured *tls.Config, message int, streams uint32, alive keepalive.ServerParameters) []grpc.ServerOption {
	alive.Time, alive.Timeout = keepaliveAfter, keepaliveAnswer
	return []grpc.ServerOption{
		grpc.Creds(security{secured}),
		grpc.ConnectionTimeout(handshakeLimit),
		grpc.MaxRecvMsgSize(message),
		grpc.MaxHeaderListSize(maxHeaderList),
		grpc.MaxConcurrentStreams(streams),
		grpc.StaticStreamWindowSize(streamWindow),
		grpc.StaticConnWindowSize(streamWindow),
		// With TLS beneath, a read buffer of grpc's own saves no system call
		// and stays allocated for as long as the connection is open.
		grpc.ReadBufferSize(0),
		// Each connection that is written to has one of these meanwhile, and when
		// all are told something that is each of them. It holds what an agent is
		// sent at a time; longer answers go in parts.
		grpc.WriteBufferSize(writeBuffer),
		grpc.KeepaliveParams(alive),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveLeast, PermitWithoutStream: true}),
	}
}

// limitUnary gives every call that is no stream a deadline, from before its
// first message: a caller that never sends one holds nothing for long. A sooner
// one of the caller's own does. exempt says of a call's full name whether it is
// left alone.
func limitUnary(exempt func(method string) bool, limit time.Duration) tap.ServerInHandle {
	return func(ctx context.Context, call *tap.Info) (context.Context, error) {
		if exempt(call.FullMethodName) {
			return ctx, nil
		}
		if end, ends := ctx.Deadline(); ends && time.Until(end) <= limit {
			return ctx, nil
		}
		// grpc cancels the call's own context at its end, and with it this one.
		limited, cancel := context.WithTimeout(ctx, limit) //nolint:gosec // see above
		_ = cancel
		return limited, nil
	}
}

// endless are the calls of a server that may take as long as they do: streams,
// and the reading of the whole audit trail.
type endless map[string]bool

func (e endless) add(s *grpc.Server) {
	for service, info := range s.GetServiceInfo() {
		for _, m := range info.Methods {
			if m.IsClientStream || m.IsServerStream {
				e["/"+service+"/"+m.Name] = true
			}
		}
	}
	e[stokerv1.AuditService_Verify_FullMethodName] = true
}

func (e endless) has(method string) bool { return e[method] }
