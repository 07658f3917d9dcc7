package devsts

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/stokerd/stoker/server/internal/secret"
)

// Defaults of Config.
const (
	DefaultAccountID   = "000000000000"
	DefaultMinLifetime = 900 * time.Second
	DefaultIssuedLimit = 1024
	DefaultPackedLimit = 1024
)

// Config is what the STS knows at its start. The zero value works and lets
// nobody in.
type Config struct {
	// Addr is where Start listens: a loopback IP address and port. Empty means
	// 127.0.0.1 and a free port.
	Addr string
	// AccountID is the AWS account, 12 digits. Empty means DefaultAccountID.
	AccountID string
	// Region is the only one that signatures may be scoped to. Empty means
	// any.
	Region string
	// Users are those with a long-term key.
	Users []User
	// Roles are those that can be assumed.
	Roles []Role
	// MinLifetime is the shortest session. Zero means AWS's 900 seconds.
	MinLifetime time.Duration
	// PackedLimit is the space for policies and tags, in bytes after packing.
	// Zero means DefaultPackedLimit.
	PackedLimit int
	// Seal makes session tokens and their secret keys: an STS with the same
	// Seal knows them again. At least 32 bytes; empty means random ones, so
	// that a restart forgets all sessions.
	Seal secret.String
	// IssuedLimit is how many credentials Issued remembers. Zero means
	// DefaultIssuedLimit.
	IssuedLimit int
	// OnIssue is told of each credential before its answer is written. It is
	// called on the request's goroutine, without any lock held; several calls
	// may run at once.
	OnIssue func(Issued)
	// Clock gives the time of the STS. Nil means time.Now.
	Clock func() time.Time
	// Random draws from [0, 1) for the probability of faults. Nil means a
	// random source.
	Random func() float64
	// Logger takes the server's own complaints. Nil means none.
	Logger *slog.Logger
}

// User is an IAM user, or the account's root user, with a long-term key. It is
// an aws.CredentialsProvider, so that it can be handed to a client.
type User struct {
	// Name is 1 to 64 letters, digits and _+=,.@-. It means nothing for root.
	Name            string
	AccessKeyID     string
	SecretAccessKey secret.String
	// Root makes it the account's root user.
	Root bool
}

// Retrieve gives the user's key.
func (u User) Retrieve(context.Context) (aws.Credentials, error) {
	return aws.Credentials{
		AccessKeyID:     u.AccessKeyID,
		SecretAccessKey: u.SecretAccessKey.Reveal(),
		Source:          "devsts",
	}, nil
}

// NewUser makes a user with a random key of AWS's form.
func NewUser(name string) User {
	return User{
		Name:            name,
		AccessKeyID:     newAccessKeyID("AKIA"),
		SecretAccessKey: secret.New(base64.StdEncoding.EncodeToString(randomBytes(30))),
	}
}

// Role is a role of the account.
type Role struct {
	// Name is 1 to 64 letters, digits and _+=,.@-. The role's ARN is
	// arn:aws:iam::ACCOUNT:role/NAME.
	Name string
	// ExternalID must be passed by whoever assumes the role, if it is set.
	ExternalID string
	// MaxLifetime is the longest session, 1 to 12 hours. Zero means 1 hour.
	MaxLifetime time.Duration
	// Trust lists the ARNs of users and roles that may assume the role. Empty
	// means everybody of the account.
	Trust []string
}

var (
	accountPattern = regexp.MustCompile(`^[0-9]{12}$`)
	namePattern    = regexp.MustCompile(`^[A-Za-z0-9_+=,.@-]{1,64}$`)
	keyPattern     = regexp.MustCompile(`^[A-Za-z0-9_]{3,128}$`)
)

// STS is the service. It is an http.Handler and safe for concurrent use.
type STS struct {
	config   Config
	roles    map[string]Role // by name
	services map[string]service
	seal     sealer
	stop     chan struct{}
	stopOnce sync.Once

	mu     sync.Mutex
	users  map[string]accessKey // by id
	faults []*Fault
	calls  map[string]int
	issued ring
	// inline has the inline policies by "user/NAME" or "role/NAME", then by
	// their own name.
	inline map[string]map[string]inlinePolicy
}

// New checks the configuration, all problems at once, and makes the service.
func New(c Config) (*STS, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	seal, err := newSealer(c.Seal)
	if err != nil {
		return nil, err
	}
	s := &STS{
		config:   c,
		users:    make(map[string]accessKey, len(c.Users)),
		roles:    make(map[string]Role, len(c.Roles)),
		services: map[string]service{stsService.name: stsService, iamService.name: iamService},
		seal:     seal,
		stop:     make(chan struct{}),
		calls:    make(map[string]int),
		inline:   make(map[string]map[string]inlinePolicy),
		issued:   ring{limit: c.IssuedLimit},
	}
	for _, u := range c.Users {
		s.users[u.AccessKeyID] = accessKey{User: u, created: c.Clock()}
	}
	for _, r := range c.Roles {
		s.roles[r.Name] = r
	}
	return s, nil
}

// Close ends the calls that a fault holds. The handler goes on answering
// others.
func (s *STS) Close() { s.stopOnce.Do(func() { close(s.stop) }) }

// Calls counts the calls that arrived, by action, refused ones included. What
// is no action of this STS counts as "unknown".
func (s *STS) Calls() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := make(map[string]int, len(s.calls))
	for action, n := range s.calls {
		calls[action] = n
	}
	return calls
}

func (s *STS) count(action string) {
	name := "unknown"
	if action == listObjectsV2 {
		name = action
	}
	for _, service := range s.services {
		if _, known := service.operations[action]; known {
			name = action
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[name]++
}

func (c Config) withDefaults() Config {
	if c.AccountID == "" {
		c.AccountID = DefaultAccountID
	}
	if c.MinLifetime == 0 {
		c.MinLifetime = DefaultMinLifetime
	}
	if c.PackedLimit == 0 {
		c.PackedLimit = DefaultPackedLimit
	}
	if c.IssuedLimit == 0 {
		c.IssuedLimit = DefaultIssuedLimit
	}
	if c.Seal.IsZero() {
		c.Seal = secret.New(string(randomBytes(32)))
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Random == nil {
		c.Random = mathrand.Float64
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	var problems []error
	report := func(format string, args ...any) { problems = append(problems, fmt.Errorf("dev STS: "+format, args...)) }
	if !accountPattern.MatchString(c.AccountID) {
		report("account id %q is not 12 digits", c.AccountID)
	}
	if c.MinLifetime < time.Second || c.MinLifetime > time.Hour {
		report("min lifetime %s is not between 1s and 1h", c.MinLifetime)
	}
	if c.PackedLimit < 0 || c.PackedLimit > maxTokenSize/2 {
		report("packed limit %d is not between 1 and %d bytes", c.PackedLimit, maxTokenSize/2)
	}
	if c.IssuedLimit < 0 {
		report("issued limit %d is negative", c.IssuedLimit)
	}
	if n := len(c.Seal.Reveal()); n < 32 {
		report("the seal has %d bytes: give at least 32", n)
	}
	keys := make(map[string]bool)
	for _, u := range c.Users {
		if !u.Root && !namePattern.MatchString(u.Name) {
			report("user name %q is not 1 to 64 letters, digits and _+=,.@-", u.Name)
		}
		if !keyPattern.MatchString(u.AccessKeyID) || keys[u.AccessKeyID] {
			report("user %q: access key id %q is malformed or taken", u.Name, u.AccessKeyID)
		}
		if u.SecretAccessKey.IsZero() {
			report("user %q has no secret access key", u.Name)
		}
		keys[u.AccessKeyID] = true
	}
	c.validateRoles(report)
	return errors.Join(problems...)
}

func (c Config) validateRoles(report func(format string, args ...any)) {
	names := make(map[string]bool)
	for _, r := range c.Roles {
		if !namePattern.MatchString(r.Name) || names[r.Name] {
			report("role name %q is malformed or taken", r.Name)
		}
		if r.MaxLifetime != 0 && (r.MaxLifetime < time.Hour || r.MaxLifetime > maxRoleLifetime) {
			report("role %q: max lifetime %s is not between 1h and 12h", r.Name, r.MaxLifetime)
		}
		names[r.Name] = true
	}
}

// newAccessKeyID makes an id of AWS's form: AKIA for long-term keys, ASIA for
// sessions.
func newAccessKeyID(prefix string) string {
	return prefix + base32.StdEncoding.EncodeToString(randomBytes(10))
}

// newRequestID makes an id of the form in which AWS gives them.
func newRequestID() string {
	b := randomBytes(16)
	return strings.ToLower(fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]))
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: it ends the program instead
	return b
}
