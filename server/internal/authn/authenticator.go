package authn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
)

// sweepInterval is how often ended sessions are forgotten whose tokens have
// expired, and sweepGrace how long after that.
const (
	sweepInterval = time.Hour
	sweepGrace    = time.Hour
	// patience is how long it may take to decide who makes a call: the time
	// that agents wait for it.
	patience = 20 * time.Second
)

// Directory is the broker's current picture of who may be. It answers from
// memory.
type Directory interface {
	Tenant(id string) (storage.Tenant, bool)
	TenantByName(name string) (storage.Tenant, bool)
	User(id string) (storage.User, bool)
	UserByLogin(tenantID, login string) (storage.User, bool)
	Agent(id string) (storage.Agent, bool)
	AgentByName(tenantID, name string) (storage.Agent, bool)
	CertificateRevoked(serial string) (why string, revoked bool)
	SessionEnded(id string) bool
	// Sync returns once everything committed before the call is in the
	// picture, and all who watch it have been told.
	Sync(ctx context.Context) error
}

// Users reads password hashes, which the directory does not hold, and stores
// upgraded ones.
type Users interface {
	GetUser(ctx context.Context, id string) (storage.User, error)
	UpdateUser(ctx context.Context, u storage.User) (storage.User, error)
}

// Sessions keeps the sessions that ended before their tokens did.
type Sessions interface {
	EndSession(ctx context.Context, s storage.EndedSession) error
	SweepSessions(ctx context.Context, before time.Time) (int64, error)
}

// Trail writes audit records. Append returns once the record is durable.
type Trail interface {
	Append(ctx context.Context, record storage.AuditRecord, fence int64) (storage.AuditRecord, error)
}

// RevocationList is what the provider's own PKI says of certificates now.
type RevocationList interface {
	Revoked(serial string) bool
	// Vouched says whether the authorities of a certificate are still trusted.
	Vouched(vouchers string) bool
}

// Config says what an Authenticator needs. All but RevocationList, Operators,
// Services, SessionLifetime and Log is required.
type Config struct {
	TrustDomain string
	Directory   Directory
	Users       Users
	Sessions    Sessions
	Tokens      *Tokens
	Passwords   *Passwords
	Trail       Trail
	// Fresh returns once the directory is known to hold all that was
	// committed before the call, by any replica; it is asked for each access
	// token, so that what one replica has acknowledged holds for every call
	// that begins on another after that. Nil: this process alone writes, and
	// the directory always is.
	Fresh          func(ctx context.Context) error
	RevocationList RevocationList
	// ForeignAuthority says that certificates come from the provider's own PKI,
	// so that the broker does not know which of them are of an agent that was
	// deleted: those that begin before the deletion are refused.
	ForeignAuthority bool
	// Operators and Services are those that the configuration knows, by the
	// name in their certificate.
	Operators map[string]Role
	Services  map[string]ServiceRule
	// SessionLifetime is how long a session lasts at most; 0 means
	// DefaultSessionLifetime. Up to a tenth is taken off at random, so that
	// agents which logged in together do not do so again.
	SessionLifetime time.Duration
	Log             *slog.Logger
}

// Authenticator makes principals of peers and says whether they still are. It
// is safe for concurrent use.
type Authenticator struct {
	cfg      Config
	throttle *throttle
	quiet    quiet
	parties  atomic.Pointer[parties]
}

// parties are the callers that the configuration knows.
type parties struct {
	operators map[string]Role
	services  map[string]ServiceRule
}

// check reports all that is wrong with them.
func (p parties) check() (problems []error) {
	for name, role := range p.operators {
		if !pki.ValidName(name) {
			problems = append(problems, fmt.Errorf("operator %q: use lower-case letters, digits and dashes", name))
		}
		if role.rank() == 0 {
			problems = append(problems, fmt.Errorf("operator %q: the role %q is not viewer, operator or admin", name, role))
		}
	}
	for name, rule := range p.services {
		if !pki.ValidName(name) {
			problems = append(problems, fmt.Errorf("service %q: use lower-case letters, digits and dashes", name))
		}
		for _, tenant := range rule.Tenants {
			if tenant != "*" && !pki.ValidTenant(tenant) {
				problems = append(problems, fmt.Errorf("service %q: %q is no tenant's name, nor *", name, tenant))
			}
		}
	}
	return problems
}

// SetParties replaces the operators and services that Config names, from the
// next check on. Whoever holds streams checks them again after it. On an error
// nothing changes.
func (a *Authenticator) SetParties(operators map[string]Role, services map[string]ServiceRule) error {
	next := parties{operators: maps.Clone(operators), services: maps.Clone(services)}
	if problems := next.check(); len(problems) > 0 {
		return errors.Join(problems...)
	}
	a.parties.Store(&next)
	return nil
}

// New checks the configuration and reports all that is wrong with it together.
func New(cfg Config) (*Authenticator, error) {
	var problems []error
	for name, missing := range map[string]bool{
		"trust domain": cfg.TrustDomain == "", "directory": cfg.Directory == nil, "users": cfg.Users == nil,
		"sessions": cfg.Sessions == nil, "tokens": cfg.Tokens == nil, "passwords": cfg.Passwords == nil, "trail": cfg.Trail == nil,
	} {
		if missing {
			problems = append(problems, fmt.Errorf("authentication: the %s is missing", name))
		}
	}
	known := parties{operators: maps.Clone(cfg.Operators), services: maps.Clone(cfg.Services)}
	problems = append(problems, known.check()...)
	if cfg.Fresh == nil {
		cfg.Fresh = func(context.Context) error { return nil }
	}
	if cfg.SessionLifetime <= 0 {
		cfg.SessionLifetime = DefaultSessionLifetime
	}
	if cfg.Tokens != nil && cfg.SessionLifetime > cfg.Tokens.keyring.cfg.SessionLifetime {
		problems = append(problems, fmt.Errorf("authentication: sessions of %s outlive the keys that verify them, which last %s",
			cfg.SessionLifetime, cfg.Tokens.keyring.cfg.SessionLifetime))
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	a := &Authenticator{cfg: cfg, throttle: newThrottle(), quiet: quiet{seen: map[string]*lately{}}}
	a.parties.Store(&known)
	return a, nil
}

// Run forgets ended sessions whose tokens have expired, until ctx ends. It
// returns nil then.
func (a *Authenticator) Run(ctx context.Context) error {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if _, err := a.cfg.Sessions.SweepSessions(ctx, time.Now().Add(-sweepGrace)); err != nil && ctx.Err() == nil {
			a.cfg.Log.Warn("cannot sweep ended sessions: trying again in an hour", "err", err)
		}
	}
}

// Authenticate decides who makes a call and whether they may. method is the
// full gRPC method name; authorization are the values of that metadata. The
// rule of the method says what is needed; a method without a rule serves
// nobody. All but a password is decided from memory.
//
// Logins and refusals are in the audit trail before the answer leaves. What a
// caller could repeat without end, which a wrong password is not, is recorded
// once a minute.
func (a *Authenticator) Authenticate(ctx context.Context, peer Peer, method string, authorization []string) (Principal, error) {
	// A stream's own context has no end, or as late a one as its caller likes.
	if end, ends := ctx.Deadline(); !ends || time.Until(end) > patience {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	p, err := a.resolve(peer)
	if reason.Is(err, reason.TenantUnknown) || reason.Is(err, reason.AgentUnknown) {
		// It may have been made on another replica a moment ago, and an agent
		// that is told so does not ask again for minutes.
		if a.cfg.Directory.Sync(ctx) == nil {
			p, err = a.resolve(peer)
		}
	}
	rule := rules[method]
	if err == nil {
		err = rule.admits(p)
	}
	if err != nil {
		if peer.Certificate.ID == "" {
			return Principal{}, err // there is nobody to record
		}
		return Principal{}, a.refuseQuietly(ctx, record(p, audit.CallRefused), method, err)
	}
	if p.Kind != Agent || rule.Agents == CertificateAlone {
		return p, nil
	}
	sent, err := parseAuthorization(authorization)
	switch {
	case err != nil:
		return Principal{}, a.refuseQuietly(ctx, record(p, audit.SessionRefused), method, err)
	case sent.isToken() && rule.Agents != PasswordLogin:
		return a.resume(ctx, p, sent.token, method)
	case sent.isPassword() && rule.Agents != TokenLogin:
		// A user made, or a password changed, on another replica counts from
		// its acknowledgement on. All logins wait, known or not: the answer's
		// delay must not tell which.
		if err := a.cfg.Directory.Sync(ctx); err != nil {
			return Principal{}, errStorage(err)
		}
		return a.login(ctx, p, sent, method)
	default:
		return Principal{}, errLoginRequired(rule.Agents)
	}
}

func errLoginRequired(need Login) error {
	what := "authorization: Basic base64(login@tenant:password), or Bearer and an access token"
	switch need {
	case PasswordLogin:
		what = "authorization: Basic base64(login@tenant:password)"
	case TokenLogin:
		what = "authorization: Bearer and the session's access token"
	}
	return reason.New(reason.LoginRequired, "the call needs a user's login; send %s", what)
}

// resolve makes a principal of a certificate alone, and checks it. With an
// error it gives what was found out until then.
func (a *Authenticator) resolve(peer Peer) (Principal, error) {
	p := Principal{Peer: peer}
	if peer.Kind == "" || peer.Certificate.ID == "" {
		return p, errNoCertificate()
	}
	// Before anything is looked up for it: a revoked certificate learns
	// nothing.
	if err := a.checkCertificate(peer.Certificate); err != nil {
		return p, err
	}
	switch peer.Kind {
	case Agent:
		tenant, ok := a.cfg.Directory.TenantByName(peer.Tenant)
		if !ok {
			return p, errTenantUnknown()
		}
		p.TenantID = tenant.ID
		agent, ok := a.cfg.Directory.AgentByName(tenant.ID, peer.Agent)
		if !ok {
			return p, errAgentUnknown()
		}
		p.AgentID = agent.ID
	case Operator:
		p.Role = a.parties.Load().operators[peer.Name]
	}
	return p, a.checkParty(p)
}

// Check says whether a principal is still good now: certificate in date and
// not revoked; tenant, agent and user there and enabled; the password still
// that of the login; the session in date and not ended. It is decided from
// memory, in microseconds, and gives the reason of the first thing that is
// not. Authenticate has checked already.
//
// Who is asked about a lease knows the session and not its end: a SessionID
// without SessionExpires is checked for all but that.
func (a *Authenticator) Check(p Principal) error {
	if p.Kind == "" || p.Certificate.ID == "" {
		return errNoCertificate()
	}
	if err := a.checkCertificate(p.Certificate); err != nil {
		return err
	}
	if err := a.checkParty(p); err != nil {
		return err
	}
	if p.UserID != "" {
		if err := a.checkUser(p); err != nil {
			return err
		}
	}
	if p.SessionID == "" {
		return nil
	}
	if a.cfg.Directory.SessionEnded(p.SessionID) {
		return reason.New(reason.SessionEnded, "the session was ended; log in again")
	}
	if !p.SessionExpires.IsZero() && !time.Now().Before(p.SessionExpires) {
		return errTokenExpired()
	}
	return nil
}

func (a *Authenticator) checkCertificate(c Certificate) error {
	now := time.Now()
	if now.After(c.NotAfter) {
		return reason.New(reason.CertificateExpired, "the certificate ended on %s; get a new one", c.NotAfter.UTC().Format(time.RFC3339))
	}
	if now.Before(c.NotBefore) {
		return reason.New(reason.CertificateExpired, "the certificate begins only on %s; check the clocks", c.NotBefore.UTC().Format(time.RFC3339))
	}
	why, revoked := a.cfg.Directory.CertificateRevoked(c.Serial)
	if !revoked && a.cfg.RevocationList != nil && a.cfg.RevocationList.Revoked(c.Serial) {
		why, revoked = "revocation list", true
	}
	if !revoked && c.Vouchers != "" && a.cfg.RevocationList != nil && !a.cfg.RevocationList.Vouched(c.Vouchers) {
		why, revoked = "its authority is not trusted any more", true
	}
	if revoked {
		err := reason.New(reason.CertificateRevoked, "the certificate was revoked; enroll again")
		if why != "" {
			return err.Because(errors.New(why))
		}
		return err
	}
	return nil
}

// checkParty checks whom the certificate names.
func (a *Authenticator) checkParty(p Principal) error {
	switch p.Kind {
	case Agent:
		return a.checkAgent(p)
	case Service:
		return a.checkService(p)
	case Operator:
		if role, ok := a.parties.Load().operators[p.Name]; !ok || role != p.Role {
			return reason.New(reason.OperatorUnknown, "the broker's configuration names no operator %s; add it", p.Name)
		}
		return nil
	default:
		return reason.New(reason.CertificateIdentityInvalid, "the certificate names no agent, service or operator")
	}
}

// checkService checks a service, and where it acts for a tenant, the tenant and
// that the service's rule still names it.
func (a *Authenticator) checkService(p Principal) error {
	rule, ok := a.parties.Load().services[p.Name]
	if !ok {
		return reason.New(reason.ServiceUnknown, "the broker's configuration names no service %s; add it", p.Name)
	}
	if p.TenantID == "" {
		return nil
	}
	tenant, ok := a.cfg.Directory.Tenant(p.TenantID)
	switch {
	case !matches(rule.Tenants, p.Tenant) || len(rule.Access) == 0:
		return errDelegationDenied()
	case !ok:
		return reason.New(reason.TenantUnknown, "the tenant does not exist any more")
	case tenant.Disabled:
		return reason.New(reason.TenantDisabled, "the tenant is disabled")
	}
	return nil
}

func errDelegationDenied() error {
	return reason.New(reason.DelegationDenied, "no rule lets this service act for the tenant with this access; ask the provider")
}

func (a *Authenticator) checkAgent(p Principal) error {
	tenant, ok := a.cfg.Directory.Tenant(p.TenantID)
	switch {
	case !ok:
		return errTenantUnknown()
	case tenant.Disabled:
		return reason.New(reason.TenantDisabled, "the provider has disabled the tenant; ask the provider")
	}
	agent, ok := a.cfg.Directory.Agent(p.AgentID)
	switch {
	case !ok || agent.TenantID != p.TenantID:
		return errAgentUnknown()
	case agent.Disabled:
		return reason.New(reason.AgentDisabled, "the provider has disabled the agent; ask the provider")
	case a.cfg.ForeignAuthority && !p.Certificate.NotBefore.IsZero() && !p.Certificate.NotBefore.After(agent.CertificatesAfter):
		return reason.New(reason.CertificateRevoked,
			"the certificate begins before an agent of this name was deleted on %s; get a new one", agent.CertificatesAfter.UTC().Format(time.RFC3339))
	}
	return nil
}

// checkUser checks the user of a login. The version is compared one way only:
// a login with a password that was set a moment ago may be ahead of the
// directory.
func (a *Authenticator) checkUser(p Principal) error {
	user, ok := a.cfg.Directory.User(p.UserID)
	switch {
	case !ok || user.TenantID != p.TenantID:
		return reason.New(reason.UserDisabled, "the user no longer exists; ask the provider")
	case user.Disabled:
		return errUserDisabled()
	case user.PasswordVersion > p.PasswordVersion:
		return reason.New(reason.PasswordChanged, "the password changed since the login; log in with the new one")
	}
	return nil
}

// AllowDelegation says whether a service may act for a tenant with an access;
// DELEGATION_DENIED where no rule lets it.
func (a *Authenticator) AllowDelegation(p Principal, tenant, access string) error {
	rule, ok := a.parties.Load().services[p.Name]
	if p.Kind == Service && ok && matches(rule.Tenants, tenant) && matches(rule.Access, access) {
		return nil
	}
	return errDelegationDenied()
}

func matches(allowed []string, name string) bool {
	return name != "" && (slices.Contains(allowed, "*") || slices.Contains(allowed, name))
}

// Introspect says whose an access token is, for a service that was handed it.
// The principal has no Address. The service must itself compare the thumbprint
// with the certificate of whoever handed it the token.
func (a *Authenticator) Introspect(ctx context.Context, token secret.String) (Principal, error) {
	found, err := a.cfg.Tokens.verify(ctx, token, nil)
	if err != nil {
		return Principal{}, err
	}
	p := Principal{
		Peer: Peer{Kind: Agent, Certificate: Certificate{
			Serial:     found.Certificate.Serial,
			Thumbprint: found.thumbprint,
			NotBefore:  found.Certificate.begin(),
			NotAfter:   time.Unix(found.Certificate.NotAfter, 0),
			Vouchers:   found.Certificate.Vouchers,
		}},
		TenantID: found.TenantID,
		AgentID:  found.AgentID,
	}
	if tenant, ok := a.cfg.Directory.Tenant(p.TenantID); ok {
		p.Tenant = tenant.Name
	}
	if agent, ok := a.cfg.Directory.Agent(p.AgentID); ok {
		p.Agent = agent.Name
	}
	if err := a.checkCertificate(p.Certificate); err != nil {
		return Principal{}, err
	}
	if err := a.checkAgent(p); err != nil {
		return Principal{}, err
	}
	id, err := pki.Identity{TrustDomain: a.cfg.TrustDomain, Kind: Agent, Tenant: p.Tenant, Agent: p.Agent}.ID()
	if err != nil {
		return Principal{}, errTokenInvalid().Because(err)
	}
	p.Certificate.ID = id.String()
	return a.assume(p, found)
}

func errTenantUnknown() error {
	return reason.New(reason.TenantUnknown, "the certificate's tenant does not exist here; ask the provider")
}

func errAgentUnknown() error {
	return reason.New(reason.AgentUnknown, "the certificate's agent does not exist here; enroll again")
}

func errUserDisabled() *reason.Error {
	return reason.New(reason.UserDisabled, "the user has been disabled; ask the provider")
}
