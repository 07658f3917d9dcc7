package adminapi

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
)

// Store is what is read and written.
type Store interface {
	storage.Tenants
	storage.Users
	storage.Agents
	storage.Locations
	storage.Grants
	RecordCertificate(ctx context.Context, c storage.Certificate) (storage.Certificate, error)
	CreateJoinToken(ctx context.Context, t storage.JoinToken) error
	ListRevocations(ctx context.Context, all bool, p storage.Page) ([]storage.Revocation, error)
	ListAudit(ctx context.Context, f storage.AuditFilter, after *storage.AuditCursor, limit int) ([]storage.AuditRecord, error)
}

// Directory finds things by name. Sync makes its answers at least as new as
// every change that was committed before the call, whichever replica made it.
type Directory interface {
	Sync(ctx context.Context) error
	Tenant(id string) (storage.Tenant, bool)
	TenantByName(name string) (storage.Tenant, bool)
	User(id string) (storage.User, bool)
	UserByLogin(tenantID, login string) (storage.User, bool)
	AgentByName(tenantID, name string) (storage.Agent, bool)
	Location(id string) (storage.Location, bool)
	LocationByName(name string) (storage.Location, bool)
	GrantByName(tenantID, name string) (storage.Grant, bool)
	// Locations and GrantsAt list what stands in one bucket, whoever's it is.
	Locations() []storage.Location
	GrantsAt(locationID string) []storage.Grant
}

// Trail makes a record durable; after an error what it tells of must not
// happen.
type Trail interface {
	Append(ctx context.Context, rec storage.AuditRecord, fence int64) (storage.AuditRecord, error)
}

// Passwords hashes new passwords for storage.
type Passwords interface {
	Hash(ctx context.Context, password secret.String) (string, error)
}

// Authority signs agents' certificates.
type Authority interface {
	SignAgent(key crypto.PublicKey, tenant, agent string, life time.Duration) (*x509.Certificate, error)
	CertificatePEM() []byte
	// Pin is the SHA-256 of the authority's public key, hexadecimal.
	Pin() string
}

// AccountLimits bounds the lifetimes of the grants on an account.
type AccountLimits struct {
	MinLifetime, MaxLifetime time.Duration
}

// Config is what the services need. Fields without a default are required.
type Config struct {
	Store     Store
	Directory Directory
	Trail     Trail
	// Verify checks every chain of the trail.
	Verify    func(ctx context.Context) (audit.Report, error)
	Passwords Passwords
	Revoker   Revoker
	// Authority is nil where the provider has a PKI of its own.
	Authority Authority
	// CertificateLifetime is how long agents' certificates live. Default 720h.
	CertificateLifetime time.Duration
	// TokenLifetime is how long a join token waits. Default 10m.
	TokenLifetime time.Duration
	// Accounts has every account that a location may name.
	Accounts map[string]AccountLimits
	// Streams lists the streams that are open on this replica.
	Streams func() []Stream
	// Events follows the trail for those who watch. Recheck says whether the
	// caller of a call that lasts is still good; Stopping closes when such
	// calls have to end, because the broker does.
	Events   Watcher
	Recheck  func(authn.Principal) error
	Stopping <-chan struct{}
	// Status measures this replica, Doctor checks what it leans on.
	Status func(context.Context) (Status, error)
	Doctor Doctor
	// Rotator replaces accounts' keys.
	Rotator Rotator
	// PageKey is at least 32 random bytes, the same in every replica: page
	// tokens are sealed under a key derived from it.
	PageKey secret.String
	Log     *slog.Logger
	// Now is the broker's clock. Default time.Now.
	Now func() time.Time
}

// API is the operators' services.
type API struct {
	Config
	pages pager
	// shaping is held while locations and grants change, so that two operators
	// at once cannot each find that their grant overlaps no other.
	shaping chan struct{}
	// watching has a place for each watch that is open.
	watching chan struct{}
	// diagnosing has one place.
	diagnosing chan struct{}
}

// New makes the services.
func New(c Config) (*API, error) {
	for name, given := range map[string]bool{
		"Store": c.Store != nil, "Directory": c.Directory != nil, "Trail": c.Trail != nil,
		"Verify": c.Verify != nil, "Passwords": c.Passwords != nil, "Revoker": c.Revoker != nil, "Streams": c.Streams != nil, "Log": c.Log != nil,
		"Events": c.Events != nil, "Recheck": c.Recheck != nil, "Stopping": c.Stopping != nil,
		"Status": c.Status != nil, "Doctor": c.Doctor != nil, "Rotator": c.Rotator != nil,
	} {
		if !given {
			return nil, fmt.Errorf("operators' services: %s is missing", name)
		}
	}
	if len(c.Accounts) == 0 {
		return nil, errors.New("operators' services: there is no account")
	}
	pages, err := newPager(c.PageKey)
	if err != nil {
		return nil, fmt.Errorf("operators' services: %w", err)
	}
	if c.CertificateLifetime == 0 {
		c.CertificateLifetime = 720 * time.Hour
	}
	if c.TokenLifetime == 0 {
		c.TokenLifetime = 10 * time.Minute
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &API{Config: c, pages: pages, shaping: make(chan struct{}, 1), watching: make(chan struct{}, maxWatches), diagnosing: make(chan struct{}, 1)}, nil
}

// Register adds the services to a server.
func (a *API) Register(r grpc.ServiceRegistrar) {
	stokerv1.RegisterTenantServiceServer(r, tenants{API: a})
	stokerv1.RegisterUserServiceServer(r, users{API: a})
	stokerv1.RegisterAgentServiceServer(r, agents{API: a})
	stokerv1.RegisterLocationServiceServer(r, locations{API: a})
	stokerv1.RegisterGrantServiceServer(r, grants{API: a})
	stokerv1.RegisterFleetServiceServer(r, fleet{API: a})
	stokerv1.RegisterAuditServiceServer(r, auditing{API: a})
	stokerv1.RegisterAccountServiceServer(r, accounts{API: a})
}
