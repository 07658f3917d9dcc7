package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/awsiam"
	"github.com/stokerd/stoker/server/internal/issuer"
	"github.com/stokerd/stoker/server/internal/issuer/devsts"
	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/rotation"
	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
	"github.com/stokerd/stoker/server/internal/storage/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const userName = "stoker"

// errFault is what an injected failure is.
var errFault = errors.New("injected")

// faults cuts a rotation off: at its nth call to IAM or write to storage,
// before it is made or after.
type faults struct {
	mu     sync.Mutex
	calls  int
	at     int // 0: never
	after  bool
	called []string
}

// reset starts to count anew, and tells how many calls there were and which was
// the one to fail.
func (f *faults) reset(at int, after bool) (calls int, failed string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls = f.calls
	if f.at > 0 && f.at <= calls {
		failed = f.called[f.at-1]
	}
	f.calls, f.called, f.at, f.after = 0, nil, at, after
	return calls, failed
}

// around makes the call unless it is the one to fail, and fails after it if it
// is that.
func (f *faults) around(what string, call func() error) error {
	f.mu.Lock()
	f.calls++
	hit := f.calls == f.at
	f.called = append(f.called, what)
	after := f.after
	f.mu.Unlock()
	if hit && !after {
		return fmt.Errorf("%s: %w", what, errFault)
	}
	err := call()
	if hit {
		return fmt.Errorf("%s: %w", what, errFault)
	}
	return err
}

type faultyIAM struct {
	rotation.IAM
	*faults
	unused *string
}

func (i faultyIAM) Used(ctx context.Context, id string) (bool, error) {
	if id == *i.unused {
		return false, nil
	}
	return i.IAM.Used(ctx, id)
}

func (i faultyIAM) List(ctx context.Context, user string) (keys []rotation.KeyInfo, err error) {
	err = i.around("List", func() (err error) { keys, err = i.IAM.List(ctx, user); return err })
	return keys, err
}

func (i faultyIAM) Create(ctx context.Context, user string) (id string, value secret.String, err error) {
	err = i.around("Create", func() (err error) { id, value, err = i.IAM.Create(ctx, user); return err })
	return id, value, err
}

func (i faultyIAM) SetActive(ctx context.Context, user, id string, active bool) error {
	return i.around("SetActive", func() error { return i.IAM.SetActive(ctx, user, id, active) })
}

func (i faultyIAM) Delete(ctx context.Context, user, id string) error {
	return i.around("Delete", func() error { return i.IAM.Delete(ctx, user, id) })
}

type faultyStore struct {
	*sqlite.Store
	*faults
}

func (s faultyStore) AddKey(ctx context.Context, k storage.SealedKey, replaces string) (stored storage.SealedKey, err error) {
	err = s.around("AddKey", func() (err error) { stored, err = s.Store.AddKey(ctx, k, replaces); return err })
	return stored, err
}

// site is an AWS account with replicas of a broker that share storage.
type site struct {
	t      *testing.T
	log    *slog.Logger
	store  *sqlite.Store
	sealer *pki.Sealer
	aws    *devsts.Server
	user   devsts.User
	mu     sync.Mutex
	names  []string
}

func newSite(t *testing.T) *site {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "db"), log)
	check(t, err)
	t.Cleanup(func() { _ = store.Close() })
	sealer, err := pki.NewSealer(secret.New("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="))
	check(t, err)
	user := devsts.NewUser(userName)
	sts, err := devsts.Start(devsts.Config{Users: []devsts.User{user}, MinLifetime: time.Second})
	check(t, err)
	t.Cleanup(func() { _ = sts.Close() })
	return &site{t: t, log: log, store: store, sealer: sealer, aws: sts, user: user}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// replica is what one broker has of all this.
type replica struct {
	*site
	desk   *rotation.Desk
	keys   *rotation.Keys
	sts    *issuer.STS
	faults *faults
	stop   func()
	// unused is a key of which IAM does not say yet that it was used.
	unused string
}

// replica starts one with this configured key.
func (s *site) replica(configured devsts.User) *replica {
	s.t.Helper()
	ctx := s.t.Context()
	trail, err := audit.Open(ctx, s.store, secret.New(strings.Repeat("k", 32)), audit.Options{Log: s.log})
	check(s.t, err)
	keys, err := rotation.OpenKeys(ctx, rotation.KeysConfig{Account: "main", Store: s.store, Sealer: s.sealer, Trail: trail, Log: s.log})
	check(s.t, err)
	sts, err := issuer.New(ctx, issuer.Account{
		Name: "main", Method: issuer.FederationToken, Region: "us-east-1", Endpoint: s.aws.URL(), MinLifetime: time.Second,
		Credentials: configured, Over: keys.Over, Refused: keys.Refused,
	})
	check(s.t, err)
	keys.Notify(sts.ForgetKeys)
	iam := awsiam.New(awsiam.Config{Region: "us-east-1", Endpoint: s.aws.URL(), Keys: sts.Keys()})
	f := &faults{}
	r := &replica{site: s, keys: keys, sts: sts, faults: f}
	r.desk = rotation.New(rotation.Config{
		Accounts: map[string]rotation.Account{"main": {Keys: keys, IAM: faultyIAM{rotation.NewAWS(iam), f, &r.unused}, Caller: sts.CallerOf}},
		Store:    faultyStore{s.store, f}, Sealer: s.sealer, Trail: trail, Writer: trail.Writer(), Log: s.log,
		Brokers: func(context.Context) ([]string, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			return slices.Clone(s.names), nil
		},
		Claim: 300 * time.Millisecond, Interval: 2 * time.Millisecond, Settle: 5 * time.Millisecond,
	})
	s.mu.Lock()
	s.names = append(s.names, trail.Writer())
	s.mu.Unlock()
	following, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var parts sync.WaitGroup
	parts.Go(func() { _ = keys.Run(following) })
	bell, err := s.store.Watch(following)
	check(s.t, err)
	parts.Go(func() {
		for range bell {
			keys.Changed([]storage.Change{{Kind: storage.KindSealedKey}})
		}
	})
	r.stop = sync.OnceFunc(func() {
		cancel()
		parts.Wait()
		_ = trail.Close(context.Background())
		sts.Close()
		iam.Close()
	})
	s.t.Cleanup(r.stop)
	return r
}

// rotate rotates, and gives the steps.
func (r *replica) rotate(req rotation.Request) (steps []rotation.Step, err error) {
	req.Account = "main"
	req.Record.Actor = "spiffe://x/operator/alice"
	err = r.desk.Rotate(r.t.Context(), req, func(p rotation.Progress) error {
		steps = append(steps, p.Step)
		return nil
	})
	return steps, err
}

// issue issues a credential, as a renewal does.
func (r *replica) issue() error {
	_, err := r.sts.Issue(context.Background(), issuer.Request{
		SessionName: "stoker-test", Duration: time.Minute,
		Policy: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/p/*"}]}`,
	})
	return err
}

// busy issues all the time until stop is called: none may fail.
func (r *replica) busy() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var working sync.WaitGroup
	working.Go(func() {
		for ctx.Err() == nil {
			if err := r.issue(); err != nil {
				r.t.Errorf("a renewal failed: %v", err)
				return
			}
			pause(ctx, 15*time.Millisecond)
		}
	})
	return func() { cancel(); working.Wait() }
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// hurry leaves the other replicas only a moment to switch: for those that never
// do.
func (r *replica) hurry() { r.desk.Patience = 100 * time.Millisecond }

// used is the id of the key that the replica uses.
func (r *replica) used() string {
	r.t.Helper()
	c, err := r.keys.Retrieve(r.t.Context())
	check(r.t, err)
	return c.AccessKeyID
}

// wantOneKey checks that the user has one key, active, that the replica uses.
func (r *replica) wantOneKey() string {
	r.t.Helper()
	ids, active := r.aws.AccessKeys(userName)
	if len(ids) != 1 || !active[0] {
		r.t.Fatalf("the user has the keys %v, active %v", ids, active)
	}
	if used := r.used(); used != ids[0] {
		r.t.Errorf("the replica uses %s, the user has %s", used, ids[0])
	}
	if err := r.issue(); err != nil {
		r.t.Error(err)
	}
	return ids[0]
}

var whole = []rotation.Step{rotation.Created, rotation.Verified, rotation.Switched, rotation.Adopted, rotation.Disabled, rotation.Deleted}

// wait rotates as soon as nobody else is at it.
func (r *replica) wait(req rotation.Request) ([]rotation.Step, error) {
	for {
		steps, err := r.rotate(req)
		var why *reason.Error
		if errors.As(err, &why) && why.RetryAfter > 0 {
			pause(r.t.Context(), min(why.RetryAfter, 20*time.Millisecond))
			continue
		}
		return steps, err
	}
}

// settle waits until the replica has followed the others.
func (r *replica) settle() { check(r.t, r.keys.Refresh(r.t.Context())) }
