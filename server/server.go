package server

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	"github.com/stokerd/stoker/proto/manual"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/adminapi"
	"github.com/stokerd/stoker/server/internal/admission"
	"github.com/stokerd/stoker/server/internal/agentapi"
	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/delegation"
	"github.com/stokerd/stoker/server/internal/directory"
	"github.com/stokerd/stoker/server/internal/enrollment"
	"github.com/stokerd/stoker/server/internal/entitlement"
	"github.com/stokerd/stoker/server/internal/issuer"
	"github.com/stokerd/stoker/server/internal/lease"
	"github.com/stokerd/stoker/server/internal/metrics"
	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/revocation"
	"github.com/stokerd/stoker/server/internal/rotation"
	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/serviceapi"
	"github.com/stokerd/stoker/server/internal/storage"
	"github.com/stokerd/stoker/server/internal/stream"
	"github.com/stokerd/stoker/server/internal/tracing"
	"github.com/stokerd/stoker/server/internal/watch"
)

// Server is one broker. New makes it; Run serves until it is told to stop.
type Server struct {
	config Config
	log    *slog.Logger

	tracing *tracing.Tracing // nil: off

	store     storage.Store
	sink      *audit.File
	trail     *audit.Trail
	directory *directory.Directory
	authority *pki.Authority // nil with a PKI of the provider's own
	reloader  *pki.Reloader
	keyring   *authn.Keyring
	passwords *authn.Passwords
	who       *authn.Authenticator
	sealer    *pki.Sealer
	issuers   map[string]*issuer.STS
	rotating  map[string]*rotation.Keys
	leases    *lease.Manager
	streams   *stream.Registry
	revoker   *revocation.Desk
	desk      *enrollment.Desk
	iams      []interface{ Close() } // the clients of accounts' IAM
	pageKey   secret.String
	watcher   *watch.Watcher
	pulse     *pulse
	started   time.Time
	// stopping closes when calls that last have to end.
	stopping chan struct{}

	registry *prometheus.Registry
	metrics  *metrics.Metrics
	ready    *readiness
	main     endpoint
	enroll   endpoint
	opsAt    net.Listener
}

// endpoint is one gRPC server with its listener.
type endpoint struct {
	server   *grpc.Server
	listener *admission.Listener
}

// New opens and checks everything that a broker needs, listeners included, and
// undoes it all if something is wrong. The broker owns the logger's use, not
// its output.
func New(ctx context.Context, c Config, log *slog.Logger) (_ *Server, err error) {
	var problems []error
	c.check(func(path, format string, args ...any) {
		problems = append(problems, fmt.Errorf("%s: %s", path, fmt.Sprintf(format, args...)))
	})
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	c.setDefaults()
	s := &Server{config: c, log: log, registry: prometheus.NewRegistry(), metrics: metrics.New(), issuers: map[string]*issuer.STS{}, rotating: map[string]*rotation.Keys{}, stopping: make(chan struct{}), started: time.Now()}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close(context.WithoutCancel(ctx)))
		}
	}()
	for _, step := range []func(context.Context) error{
		s.openTracing, s.openState, s.openIdentity, s.openIssuing, s.openStreams, s.openRevocation, s.openEndpoints,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Addr is where the gRPC listener listens.
func (s *Server) Addr() net.Addr { return s.main.listener.Addr() }

// EnrollmentAddr is where new agents enroll; nil where they do not.
func (s *Server) EnrollmentAddr() net.Addr {
	if s.enroll.listener == nil {
		return nil
	}
	return s.enroll.listener.Addr()
}

// OperationsAddr is where metrics and probes are served; nil if they are off.
func (s *Server) OperationsAddr() net.Addr {
	if s.opsAt == nil {
		return nil
	}
	return s.opsAt.Addr()
}

// openState opens storage, the directory and the audit trail.
func (s *Server) openState(ctx context.Context) (err error) {
	sealer, err := openSealer(s.config)
	if err != nil {
		return err
	}
	s.sealer = sealer
	if s.store, err = openStorage(ctx, s.config.Storage, s.log); err != nil {
		return err
	}
	if s.sink, err = openSink(s.config.Audit); err != nil {
		return err
	}
	if s.trail, err = openTrail(ctx, s.store, sealer, audit.Options{Log: s.log, Committed: s.metrics.Committed}, s.sink); err != nil {
		return err
	}
	if s.directory, err = directory.Open(ctx, s.store, s.log); err != nil {
		return err
	}
	s.watcher = watch.New(s.store)
	pages, err := obtainKey(ctx, s.store, sealer, purposePages, randomKey)
	if err != nil {
		return err
	}
	s.pageKey = secret.New(string(pages.private))
	if s.config.TLS == (TLSConfig{}) {
		if s.authority, err = obtainAuthority(ctx, s.store, sealer, s.config.TrustDomain); err != nil {
			return err
		}
	}
	s.keyring, err = authn.OpenKeyring(ctx, authn.KeyringConfig{
		Keys: s.store, Sealer: sealer, SessionLifetime: s.config.Sessions.Lifetime, Log: s.log,
	})
	return err
}

// openIdentity opens what decides who somebody is.
func (s *Server) openIdentity(context.Context) (err error) {
	s.reloader, err = pki.NewReloader(pki.ReloaderConfig{
		Certificate: s.config.TLS.Certificate, Key: s.config.TLS.Key, ClientCA: s.config.TLS.ClientAuthorities,
		CRL: s.config.TLS.RevocationList, Names: s.config.Names, Authority: s.authority, Log: s.log,
	})
	if err != nil {
		return err
	}
	if s.passwords, err = authn.NewPasswords(authn.PasswordsConfig{}); err != nil {
		return err
	}
	operators, services := s.config.parties()
	tokens, err := authn.NewTokens(s.config.TrustDomain, s.keyring)
	if err != nil {
		return err
	}
	// SQLite has one writer, this process.
	var fresh func(context.Context) error
	if s.config.Storage.Postgres != "" {
		fresh = s.directory.Sync
	}
	s.who, err = authn.New(authn.Config{
		Fresh:       fresh,
		TrustDomain: s.config.TrustDomain, Directory: s.directory, Users: s.store, Sessions: s.store,
		Tokens: tokens, Passwords: s.passwords, Trail: s.tracing.Trail(s.trail), RevocationList: s.reloader,
		ForeignAuthority: s.config.TLS != (TLSConfig{}),
		Operators:        operators, Services: services, SessionLifetime: s.config.Sessions.Lifetime, Log: s.log,
	})
	return err
}

// openIssuing opens the STS accounts and the leases. What cannot work with the
// keys that were found stops the start; an STS that is away does not.
func (s *Server) openIssuing(ctx context.Context) error {
	var problems []error
	accounts := make(map[string]lease.Account, len(s.config.Accounts))
	for name, a := range s.config.Accounts {
		keys, err := rotation.OpenKeys(ctx, rotation.KeysConfig{Account: name, Store: s.store, Sealer: s.sealer, Trail: s.trail, Log: s.log})
		if err != nil {
			return err
		}
		s.rotating[name] = keys
		sts, err := issuer.New(ctx, issuer.Account{
			Name: name, Region: a.Region, Endpoint: a.Endpoint, Profile: a.Profile, RoleARN: a.RoleARN, ExternalID: a.ExternalID,
			Method: issuer.Method(a.Method), MaxLifetime: a.MaxLifetime, MinLifetime: a.MinLifetime, RatePerSecond: a.Rate, Credentials: a.Keys,
			Over: keys.Over, Refused: keys.Refused,
		})
		if err != nil {
			problems = append(problems, err)
			continue
		}
		s.issuers[name] = sts
		if err := s.checkAccount(ctx, name, sts); err != nil {
			problems = append(problems, err)
		}
		account := sts.Account()
		made := lease.Account{
			Issuer: s.tracing.Issuer(sts, account), Rate: a.Rate, MinLifetime: account.MinLifetime, MaxLifetime: account.MaxLifetime,
			MaxName: account.Method.MaxNameChars(),
		}
		if a.Issuer != nil {
			made.Issuer = a.Issuer
		}
		accounts[name] = made
	}
	if len(problems) > 0 {
		return errors.Join(problems...)
	}
	rights := entitlement.New(s.directory, s.who)
	var err error
	s.leases, err = lease.New(lease.Config{
		Accounts: accounts, Authority: rights, Trail: s.tracing.Trail(s.trail), History: s.store, Log: s.log,
		Observer: s.metrics, Tracer: s.tracing.Leases(), Now: s.config.Clock,
	})
	if err != nil {
		return err
	}
	s.pulse = newPulse(s.leases.Counts)
	for name, keys := range s.rotating {
		sts := s.issuers[name]
		keys.Notify(func() {
			sts.ForgetKeys()
			// What STS has refused for good it may have refused for the key.
			s.leases.Recheck()
		})
		s.directory.Observe(keys.Changed)
	}
	// In this order: tokens must verify under new keys before streams, and the
	// leases with them, are looked at.
	s.directory.Observe(s.keyring.Changed)
	s.directory.Observe(rights.Forget)
	return nil
}

// checkAccount says what is wrong or odd about an account.
func (s *Server) checkAccount(ctx context.Context, name string, sts *issuer.STS) error {
	findings, err := sts.Check(ctx)
	if err != nil {
		return err
	}
	var fatal []error
	for _, f := range findings {
		switch f.Severity {
		case issuer.Fatal:
			fatal = append(fatal, errors.New(f.Message))
		case issuer.Warning:
			s.log.WarnContext(ctx, "account", "account", name, "finding", f.Message)
		default:
			s.log.InfoContext(ctx, "account", "account", name, "finding", f.Message)
		}
	}
	return errors.Join(fatal...)
}

// openStreams opens the registry of streams.
func (s *Server) openStreams(context.Context) (err error) {
	s.streams, err = stream.New(stream.Config{Directory: s.directory, Checker: s.who, Leases: stream.Managed(s.leases), LoginPace: s.passwords.Pace, Now: s.config.Clock, Log: s.log})
	if err != nil {
		return err
	}
	s.directory.Observe(s.streams.After(s.leases.Changed))
	// A new revocation list is no change of the directory's. The leases come
	// first: a stream that ends takes their subscribers along.
	s.reloader.Observe(func() {
		s.leases.Recheck()
		s.streams.Recheck()
	})
	return nil
}

// openEndpoints registers the services and opens the listeners.
func (s *Server) openEndpoints(ctx context.Context) error {
	calls := newCallMetrics()
	s.registry.MustRegister(calls, s.metrics, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	s.desk = enrollment.New(enrollment.Config{
		Authority: s.signer(), Directory: s.directory, Tokens: s.store, Certificates: s.store, Trail: s.trail,
		Lifetime: s.certificateLifetime(), Log: s.log,
	})
	exempt, methods := endless{}, served{}
	s.main.server = grpc.NewServer(slices.Concat(mainTransport(s.reloader.Mutual(), exempt), s.traces(methods),
		chain(layers(s.log, calls, members(s.config.TrustDomain, s.who, admission.NewTurnstile(entriesPerCore*runtime.GOMAXPROCS(0))))))...)
	if err := s.registerMain(); err != nil {
		return err
	}
	exempt.add(s.main.server)
	methods.add(s.main.server)
	calls.add(s.main.server)
	var err error
	if s.main.listener, err = listen(ctx, s.config.Listen, s.config.mainLimits(), s.log); err != nil {
		return err
	}
	if e := s.config.Enrollment; e != nil {
		s.enroll.server = grpc.NewServer(append(enrollTransport(s.reloader.ServerOnly()),
			chain(layers(s.log, calls, newcomers))...)...)
		agentapi.RegisterEnrollment(s.enroll.server, s.desk)
		calls.add(s.enroll.server)
		if s.enroll.listener, err = listen(ctx, e.Listen, enrollLimits(), s.log); err != nil {
			return err
		}
	}
	if s.config.Operations != "off" {
		var lc net.ListenConfig
		s.opsAt, err = lc.Listen(ctx, "tcp", s.config.Operations)
	}
	return err
}

// registerMain adds every service of the main listener.
func (s *Server) registerMain() error {
	agents, err := agentapi.NewCredentialService(agentapi.CredentialConfig{
		Streams: s.streams, Directory: s.directory, Leases: s.leases, Checker: s.who, Log: s.log,
	})
	if err != nil {
		return err
	}
	sessions, err := agentapi.NewSessionService(s.who)
	if err != nil {
		return err
	}
	stokerv1.RegisterCredentialServiceServer(s.main.server, agents)
	stokerv1.RegisterSessionServiceServer(s.main.server, sessions)
	agentapi.RegisterEnrollment(s.main.server, s.desk)
	serviceapi.Register(s.main.server, serviceapi.Config{
		Counter: delegation.New(delegation.Config{
			Directory: s.directory, Rules: s.who, Leases: s.leases, Trail: s.tracing.Trail(s.trail), Log: s.log,
		}),
		Streams: s.streams, Tokens: s.who, Log: s.log,
	})
	accounts := make(map[string]adminapi.AccountLimits, len(s.issuers))
	for name, sts := range s.issuers {
		a := sts.Account()
		accounts[name] = adminapi.AccountLimits{MinLifetime: a.MinLifetime, MaxLifetime: a.MaxLifetime}
	}
	operators, err := adminapi.New(adminapi.Config{
		Store: s.store, Directory: s.directory, Trail: s.trail, Verify: s.trail.Verify, Passwords: s.passwords, Revoker: s.revoker,
		Authority: s.signer(), CertificateLifetime: s.certificateLifetime(), TokenLifetime: s.tokenLifetime(),
		Accounts: accounts, Streams: s.listStreams, PageKey: s.pageKey, Log: s.log,
		Events: s.watcher, Recheck: s.who.Check, Stopping: s.stopping, Status: s.status, Doctor: s.physician(), Rotator: s.rotator(),
	})
	if err != nil {
		return err
	}
	operators.Register(s.main.server)
	services := make([]string, 0, 16)
	for name := range s.main.server.GetServiceInfo() {
		services = append(services, name)
	}
	s.ready = newReadiness(s.log, services, s.conditions()...)
	s.metrics.Attach(metrics.Sources{
		Leases: s.leases.Stats, Streams: s.streams.Stats, Passwords: s.passwords.Stats,
		Certificates: s.reloader.Status, Trail: s.trail.Stats, Ready: s.ready.Problem, Connections: s.connections,
		Revocations: s.directory.Revocations,
	})
	healthv1.RegisterHealthServer(s.main.server, s.ready.health)
	return reflect(s.main.server)
}

// reflect serves the API's descriptors with their comments.
func reflect(server *grpc.Server) error {
	files, err := manual.Load()
	if err != nil {
		return err
	}
	options := reflection.ServerOptions{Services: server, DescriptorResolver: files}
	reflectionv1.RegisterServerReflectionServer(server, reflection.NewServerV1(options))
	reflectionv1alpha.RegisterServerReflectionServer(server, reflection.NewServer(options))
	return nil
}

// connections says how the listeners stand, by name.
func (s *Server) connections() map[string]admission.Stats {
	all := map[string]admission.Stats{"main": s.main.listener.Stats()}
	if s.enroll.listener != nil {
		all["enrollment"] = s.enroll.listener.Stats()
	}
	return all
}

// signer is the built-in authority, or a nil interface.
func (s *Server) signer() adminapi.Authority {
	if s.authority == nil {
		return nil
	}
	return s.authority
}

func (s *Server) certificateLifetime() time.Duration {
	if s.config.Enrollment == nil {
		return 720 * time.Hour
	}
	return s.config.Enrollment.CertificateLifetime
}

func (s *Server) tokenLifetime() time.Duration {
	if s.config.Enrollment == nil {
		return 10 * time.Minute
	}
	return s.config.Enrollment.TokenLifetime
}

// listStreams gives operators' services what is open here.
func (s *Server) listStreams() []adminapi.Stream {
	infos, _, err := s.streams.List(stream.Filter{}, "", 1<<30)
	if err != nil {
		// Only a place in the list can be wrong, and this one is its start.
		s.log.Error("streams not listed", "error", err)
		return nil
	}
	listed := make([]adminapi.Stream, len(infos))
	for i, v := range infos {
		listed[i] = adminapi.Stream{
			ID: v.ID, TenantID: v.TenantID, Tenant: v.Tenant, AgentID: v.AgentID, Agent: v.Agent, UserID: v.UserID, Login: v.Login,
			Peer: v.Peer, Client: v.Client, CertificateFrom: v.CertificateFrom, CertificateTo: v.CertificateTo,
			CertificateSerial: v.CertificateSerial, Opened: v.Opened, Pending: v.Pending, Service: v.Service, Purpose: v.Purpose,
		}
		for _, g := range v.Grants {
			listed[i].Grants = append(listed[i].Grants, adminapi.StreamGrant(g))
		}
	}
	return listed
}

// Methods lists the full names of the calls that the main listener serves.
func (s *Server) Methods() iter.Seq[string] {
	return func(yield func(string) bool) {
		for service, info := range s.main.server.GetServiceInfo() {
			for _, m := range info.Methods {
				if !yield("/" + service + "/" + m.Name) {
					return
				}
			}
		}
	}
}
