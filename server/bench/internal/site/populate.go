package site

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/directory"
	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
)

// writers is how many write into storage at once: enough to fill its group
// commits.
const writers = 64

// office is what enrolling takes.
type office struct {
	store     storage.Store
	sealer    *pki.Sealer
	authority *pki.Authority
}

// key reads the broker's stored key of a purpose.
func (o *office) key(ctx context.Context, purpose string) (private secret.String, public []byte, err error) {
	keys, err := o.store.ListKeys(ctx, purpose)
	if err != nil {
		return secret.String{}, nil, err
	}
	if len(keys) == 0 {
		return secret.String{}, nil, fmt.Errorf("the broker has no %s key", purpose)
	}
	plain, err := o.sealer.Open(purpose, keys[0].Sealed)
	return secret.New(string(plain)), keys[0].Public, err
}

// populate makes tenants, agents and their sessions.
func (s *Site) populate(ctx context.Context, o *office) error {
	private, public, err := o.key(ctx, "authority")
	if err != nil {
		return err
	}
	if o.authority, err = pki.LoadAuthority(public, private); err != nil {
		return err
	}
	if s.Server, err = pki.NewPair(func(key crypto.PublicKey) (*x509.Certificate, error) {
		return o.authority.SignServer(key, []string{ServerName}, nil, certificateLife)
	}); err != nil {
		return err
	}
	place, err := o.store.CreateLocation(ctx, storage.Location{
		Meta: newMeta(), Name: location, Account: Account, Bucket: Bucket, Region: "us-east-1",
	})
	if err != nil {
		return err
	}
	hash, err := s.choosePassword(ctx)
	if err != nil {
		return err
	}
	for i, g := range s.Groups {
		if err := s.settle(ctx, o, i, g, place.ID, hash); err != nil {
			return fmt.Errorf("tenant %s: %w", g.Tenant, err)
		}
	}
	return s.logIn(ctx, o)
}

// choosePassword makes the password of all users. Few use it: agents come with
// tokens.
func (s *Site) choosePassword(ctx context.Context) (hash string, err error) {
	pool, err := authn.NewPasswords(authn.PasswordsConfig{})
	if err != nil {
		return "", err
	}
	if s.Password, err = authn.Generate(); err != nil {
		return "", err
	}
	return pool.Hash(ctx, s.Password)
}

// settle makes one tenant with its agents.
func (s *Site) settle(ctx context.Context, o *office, group int, g Group, locationID, hash string) error {
	tenant, err := o.store.CreateTenant(ctx, storage.Tenant{Meta: newMeta(), Name: g.Tenant})
	if err != nil {
		return err
	}
	if _, err = o.store.CreateUser(ctx, storage.User{
		Meta: newMeta(), TenantID: tenant.ID, Login: Login, PasswordHash: hash, PasswordVersion: 1,
	}); err != nil {
		return err
	}
	if _, err = o.store.CreateGrant(ctx, storage.Grant{
		Meta: newMeta(), TenantID: tenant.ID, Name: Grant, LocationID: locationID, Prefix: Prefix(g.Tenant),
		Access: "backup", Lifetime: g.Lifetime,
	}); err != nil {
		return err
	}
	first := len(s.Agents)
	s.Agents = append(s.Agents, make([]Agent, g.Agents)...)
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(writers)
	for i := first; i < len(s.Agents); i++ {
		all.Go(func() (err error) {
			s.Agents[i], err = o.enroll(ctx, tenant, group, i)
			return err
		})
	}
	return all.Wait()
}

// enroll makes one agent with its certificate.
func (o *office) enroll(ctx context.Context, tenant storage.Tenant, group, index int) (Agent, error) {
	a := Agent{Group: group, Tenant: tenant.Name, Name: fmt.Sprintf("agent-%d", index), Source: source(index)}
	stored, err := o.store.CreateAgent(ctx, storage.Agent{Meta: newMeta(), TenantID: tenant.ID, Name: a.Name})
	if err != nil {
		return Agent{}, err
	}
	a.ID = stored.ID
	a.Certificate, err = pki.NewPair(func(key crypto.PublicKey) (*x509.Certificate, error) {
		return o.authority.SignAgent(key, a.Tenant, a.Name, certificateLife)
	})
	return a, err
}

// source spreads agents over 127.0.0.0/8, each at an address of its own.
func source(index int) netip.Addr {
	var b [4]byte
	const first = 127<<24 | 1<<16 | 1
	binary.BigEndian.PutUint32(b[:], uint32(first+index))
	return netip.AddrFrom4(b)
}

// logIn begins a session for each agent, as a login with the password does,
// but for the password.
func (s *Site) logIn(ctx context.Context, o *office) (err error) {
	log := slog.New(slog.DiscardHandler)
	key, _, err := o.key(ctx, "audit")
	if err != nil {
		return err
	}
	trail, err := audit.Open(ctx, o.store, key, audit.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, trail.Close(ctx)) }()
	known, err := directory.Open(ctx, o.store, log)
	if err != nil {
		return err
	}
	keyring, err := authn.OpenKeyring(ctx, authn.KeyringConfig{Keys: o.store, Sealer: o.sealer, SessionLifetime: 24 * time.Hour})
	if err != nil {
		return err
	}
	tokens, err := authn.NewTokens(TrustDomain, keyring)
	if err != nil {
		return err
	}
	passwords, err := authn.NewPasswords(authn.PasswordsConfig{})
	if err != nil {
		return err
	}
	who, err := authn.New(authn.Config{
		TrustDomain: TrustDomain, Directory: known, Users: o.store, Sessions: o.store, Tokens: tokens,
		Passwords: passwords, Trail: trail, SessionLifetime: 24 * time.Hour,
	})
	if err != nil {
		return err
	}
	all, beginning := errgroup.WithContext(ctx)
	all.SetLimit(4 * writers)
	for i := range s.Agents {
		all.Go(func() error { return s.Agents[i].logIn(beginning, known, who) })
	}
	return all.Wait()
}

func (a *Agent) logIn(ctx context.Context, known *directory.Directory, who *authn.Authenticator) error {
	peer, err := authn.Identify(TrustDomain, a.Certificate.Leaf)
	if err != nil {
		return err
	}
	agent, ok := known.Agent(a.ID)
	if !ok {
		return fmt.Errorf("agent %s is not in the directory", a.Name)
	}
	user, ok := known.UserByLogin(agent.TenantID, Login)
	if !ok {
		return fmt.Errorf("tenant %s has no user %s", a.Tenant, Login)
	}
	peer.Address = a.Source.String()
	begun, err := who.CreateSession(ctx, authn.Principal{
		Peer: peer, TenantID: agent.TenantID, AgentID: a.ID, UserID: user.ID, Login: Login, PasswordVersion: user.PasswordVersion,
	})
	a.Token = begun.Token.Reveal()
	a.Serial, a.CertificateEnd = peer.Certificate.Serial, peer.Certificate.NotAfter
	// What is sent is the DER; its parsed form takes five kilobytes.
	a.Certificate.Leaf = nil
	return err
}

func newMeta() storage.Meta { return storage.Meta{ID: uuid.Must(uuid.NewV7()).String()} }
