package authn

import (
	"context"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"time"

	"github.com/google/uuid"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
)

// Session is a successful login.
type Session struct {
	ID string
	// Token is the access token, bound to the certificate of the login.
	Token   secret.String
	Expires time.Time
}

// CreateSession begins a session for a principal who has just logged in with a
// password. It ends with the certificate at the latest.
func (a *Authenticator) CreateSession(ctx context.Context, p Principal) (Session, error) {
	if p.Kind != Agent || p.UserID == "" || p.SessionID != "" {
		return Session{}, errLoginRequired(PasswordLogin)
	}
	if err := a.Check(p); err != nil {
		return Session{}, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return Session{}, fmt.Errorf("name a session: %w", err)
	}
	p.SessionID = id.String()
	p.SessionExpires = a.sessionEnd(p.Certificate.NotAfter)
	if !p.SessionExpires.After(time.Now()) {
		return Session{}, reason.New(reason.CertificateExpired, "the certificate ends now; get a new one")
	}
	token, err := a.cfg.Tokens.mint(p)
	if err != nil {
		return Session{}, err
	}
	created := record(p, audit.SessionCreated)
	created.Expires = p.SessionExpires
	created.Detail["login"] = "password"
	if err := a.append(ctx, created); err != nil {
		return Session{}, err
	}
	return Session{ID: p.SessionID, Token: token, Expires: p.SessionExpires}, nil
}

// sessionEnd is when a session that begins now ends, in whole seconds, which
// is what a token can say.
func (a *Authenticator) sessionEnd(certificateEnd time.Time) time.Time {
	life := a.cfg.SessionLifetime
	if jitter := life / 10; jitter > 0 {
		life -= mathrand.N(jitter)
	}
	end := time.Now().Add(life)
	if end.After(certificateEnd) {
		end = certificateEnd
	}
	return end.Truncate(time.Second)
}

// EndSession ends the principal's session. When it returns nil the access
// token is refused here, and the streams that used it have been told; other
// replicas follow within a second.
func (a *Authenticator) EndSession(ctx context.Context, p Principal) error {
	if p.SessionID == "" {
		return errLoginRequired(TokenLogin)
	}
	// First the end, then the record: if one of the two fails the session had
	// better be dead. Once it is, there is a record, whatever else fails.
	err := a.cfg.Sessions.EndSession(ctx, storage.EndedSession{ID: p.SessionID, Expires: p.SessionExpires})
	if err != nil {
		return errStorage(err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if err := a.append(ctx, record(p, audit.SessionEnded)); err != nil {
		return err
	}
	if err := a.cfg.Directory.Sync(ctx); err != nil {
		return errStorage(err)
	}
	return nil
}

// resume lets a principal in by an access token.
func (a *Authenticator) resume(ctx context.Context, p Principal, token secret.String, method string) (Principal, error) {
	found, err := a.cfg.Tokens.verify(ctx, token, p.Memory)
	resumed := p
	if err == nil {
		// After the signature: a forged token costs no look.
		if err := a.cfg.Fresh(ctx); err != nil {
			return Principal{}, errStorage(err)
		}
		resumed, err = a.match(p, found)
	}
	if err != nil {
		// The id is the session's only if the signature was right; it is empty
		// otherwise.
		r := record(p, audit.SessionRefused)
		r.SessionID, r.Detail["login"] = found.ID, "token"
		return Principal{}, a.refuseQuietly(ctx, r, method, err)
	}
	return resumed, nil
}

// match gives the principal what a genuine token says, if it is the
// principal's own.
func (a *Authenticator) match(p Principal, found claims) (Principal, error) {
	if !found.boundTo(p.Certificate.Thumbprint) {
		return Principal{}, reason.New(reason.TokenCertificateBind, "the access token was made with another certificate; log in with this one")
	}
	if found.TenantID != p.TenantID || found.AgentID != p.AgentID {
		// The same certificate, but the tenant or agent was deleted and made
		// anew under the same name.
		return Principal{}, errTokenInvalid().Because(errors.New("made for another tenant or agent of the same name"))
	}
	return a.assume(p, found)
}

// assume gives the principal what the token says and checks the whole.
func (a *Authenticator) assume(p Principal, found claims) (Principal, error) {
	p.UserID = found.Subject
	p.PasswordVersion = found.PasswordVersion
	p.SessionID = found.ID
	p.SessionExpires = found.ExpiresAt.Time
	if user, ok := a.cfg.Directory.User(p.UserID); ok {
		p.Login = user.Login
	}
	if err := a.Check(p); err != nil {
		return Principal{}, err
	}
	return p, nil
}

// refusal is a login that was refused after being understood. It is audited.
type refusal struct {
	err *reason.Error
	// detail is for the audit trail: what the caller must not be able to
	// tell apart, the provider can.
	detail string
	// wrong says that it counts as a failure.
	wrong bool
}

// login lets a principal in by a password.
func (a *Authenticator) login(ctx context.Context, p Principal, sent authorization, method string) (Principal, error) {
	attempt, err := a.throttle.begin(ctx, p.Certificate.Thumbprint, sent.login+"@"+sent.tenant)
	if err != nil {
		r := record(p, audit.SessionRefused)
		r.Login = sent.login
		return Principal{}, a.refuseQuietly(ctx, r, method, err)
	}
	outcome := undecided
	defer func() { attempt.end(outcome) }()
	user, refused, err := a.decide(ctx, p, sent)
	if err != nil {
		return Principal{}, err
	}
	if refused != nil {
		if refused.wrong {
			outcome = wrong
		}
		r := record(p, audit.SessionRefused)
		r.Login = sent.login
		r.Detail["login"], r.Detail["cause"] = "password", refused.detail
		return Principal{}, a.refuse(ctx, r, method, refused.err)
	}
	outcome = right
	p.UserID, p.Login, p.PasswordVersion = user.ID, user.Login, user.PasswordVersion
	// Whatever changed while the password was checked.
	if err := a.Check(p); err != nil {
		r := record(p, audit.SessionRefused)
		r.Detail["login"], r.Detail["cause"] = "password", "right password"
		return Principal{}, a.refuse(ctx, r, method, err)
	}
	a.upgrade(ctx, user, sent.password)
	if rules[method].Agents == PasswordLogin {
		return p, nil // CreateSession writes the record, with the session
	}
	created := record(p, audit.SessionCreated)
	created.Detail["login"], created.Detail["call"] = "password", method
	if err := a.append(ctx, created); err != nil {
		return Principal{}, err
	}
	return p, nil
}

// decide says whose login it is, or why it is refused. Its error means that it
// could not be decided.
func (a *Authenticator) decide(ctx context.Context, p Principal, sent authorization) (storage.User, *refusal, error) {
	if sent.tenant != p.Tenant {
		// Before any hash: no agent makes the broker work for another tenant.
		return storage.User{}, &refusal{
			err: reason.New(reason.TenantMismatch,
				"the login belongs to another tenant than the certificate; use a login of the agent's tenant"),
			detail: "login of tenant " + sent.tenant, wrong: true,
		}, nil
	}
	user, err := a.lookup(ctx, p.TenantID, sent.login)
	if errors.Is(err, storage.ErrNotFound) {
		if err := a.cfg.Passwords.VerifyUnknown(ctx, sent.password); err != nil {
			return storage.User{}, nil, err
		}
		return storage.User{}, rejected("unknown login"), nil
	}
	if err != nil {
		return storage.User{}, nil, errStorage(err)
	}
	good, err := a.cfg.Passwords.Verify(ctx, user.PasswordHash, sent.password)
	switch {
	case errors.Is(err, errStoredHash):
		return storage.User{}, nil, fmt.Errorf("user %s: %w", user.ID, err)
	case err != nil:
		return storage.User{}, nil, err
	case !good:
		return storage.User{}, rejected("wrong password"), nil
	case user.Disabled:
		// Only whoever knows the password learns that the user exists.
		return storage.User{}, &refusal{err: errUserDisabled(), detail: "right password"}, nil
	}
	return user, nil, nil
}

// rejected is the one answer to an unknown login and to a wrong password.
func rejected(detail string) *refusal {
	return &refusal{
		err:    reason.New(reason.LoginRejected, "the login or the password is wrong; correct it"),
		detail: detail, wrong: true,
	}
}

// lookup reads the user with its hash. Storage is asked in either case, so
// that the time taken does not tell whether the login exists.
func (a *Authenticator) lookup(ctx context.Context, tenantID, login string) (storage.User, error) {
	known, ok := a.cfg.Directory.UserByLogin(tenantID, login)
	if !ok {
		known.ID = uuid.Nil.String()
	}
	user, err := a.cfg.Users.GetUser(ctx, known.ID)
	switch {
	case err != nil:
		return storage.User{}, err
	case !ok || user.TenantID != tenantID || user.Login != login:
		return storage.User{}, storage.ErrNotFound
	}
	return user, nil
}

// upgrade replaces a hash that is weaker than today's, while the password is
// at hand. It is worth trying and never a reason to refuse the login: another
// login, or a change of the user, may be quicker, and the pool may be full.
func (a *Authenticator) upgrade(ctx context.Context, user storage.User, password secret.String) {
	if !a.cfg.Passwords.NeedsRehash(user.PasswordHash) {
		return
	}
	hash, err := a.cfg.Passwords.Hash(ctx, password)
	if err == nil {
		user.PasswordHash = hash
		_, err = a.cfg.Users.UpdateUser(ctx, user)
	}
	if err != nil && !errors.Is(err, storage.ErrConflict) {
		a.cfg.Log.Info("a password hash was not upgraded: the next login tries again", "user", user.ID, "err", err)
	}
}

// errStorage gives a storage failure its reason; the end of the call's own
// context stays what it is.
func errStorage(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return reason.New(reason.StorageUnavailable, "the broker's storage does not answer; wait").Because(err)
}
