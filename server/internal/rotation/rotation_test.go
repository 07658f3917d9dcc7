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

	"github.com/aws/aws-sdk-go-v2/aws"
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
		Claim: 300 * time.Millisecond, Interval: 2 * time.Millisecond, Patience: 400 * time.Millisecond, Settle: 5 * time.Millisecond,
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

func TestRotate(t *testing.T) {
	s := newSite(t)
	r, other := s.replica(s.user), s.replica(s.user)
	defer r.busy()()
	defer other.busy()()
	for range 2 {
		before := r.wantOneKey()
		steps, err := r.rotate(rotation.Request{})
		if err != nil || !slices.Equal(steps, whole) {
			t.Fatalf("%v, %v", steps, err)
		}
		if after := r.wantOneKey(); after == before {
			t.Error("the key is the same")
		}
		other.wantOneKey()
	}
	// A replica that starts later, with the key of the beginning configured.
	s.replica(s.user).wantOneKey()
	// What the operator configures anew is obeyed.
	fresh := s.aws.AddAccessKey(userName)
	late := s.replica(fresh)
	if used := late.used(); used != fresh.AccessKeyID {
		t.Errorf("uses %s, configured is %s", used, fresh.AccessKeyID)
	}
	records, err := s.store.ListAudit(t.Context(), storage.AuditFilter{Events: []string{string(audit.AccountKeyRotated), string(audit.AccountKeyAdopted)}}, nil, 100)
	check(t, err)
	if len(records) < 2*len(whole)+4 {
		t.Errorf("%d records", len(records))
	}
}

// No secret is in storage in clear.
func TestStoredSealed(t *testing.T) {
	s := newSite(t)
	r := s.replica(s.user)
	_, err := r.rotate(rotation.Request{})
	check(t, err)
	c, err := r.keys.Retrieve(t.Context())
	check(t, err)
	rows, err := s.store.ListKeys(t.Context(), "account/main")
	check(t, err)
	if len(rows) != 1 {
		t.Errorf("%d states are kept", len(rows))
	}
	for _, row := range rows {
		if strings.Contains(string(row.Sealed)+string(row.Public), c.SecretAccessKey) {
			t.Error("the secret is in storage in clear")
		}
	}
}

// However a rotation is cut off, running it again ends it, and undoing it goes
// back. No renewal fails meanwhile.
func TestCutOffAtEachStep(t *testing.T) {
	s := newSite(t)
	r, other := s.replica(s.user), s.replica(s.user)
	defer r.busy()()
	defer other.busy()()
	for n, finished := 1, false; !finished; n++ {
		finished = true
		for _, c := range []struct{ after, abort bool }{{false, n%2 == 0}, {true, n%2 == 1}} {
			what := fmt.Sprintf("call %d, %+v", n, c)
			r.faults.reset(n, c.after)
			_, err := r.wait(rotation.Request{})
			calls, called := r.faults.reset(0, false)
			finished = finished && calls < n
			if err == nil && calls >= n && called != "AddKey" {
				t.Errorf("%s: %s failed and nobody noticed", what, called)
			}
			// The other replica takes over, at once or when the claim has run out.
			_, err = other.wait(rotation.Request{Abort: c.abort})
			switch {
			case c.abort && err != nil && strings.Contains(err.Error(), "nothing to abort"):
			case c.abort && err != nil && strings.Contains(err.Error(), "NoSuchEntity"):
				// The old key is gone already: it goes on.
				if _, err := other.wait(rotation.Request{}); err != nil {
					t.Errorf("%s: %v", what, err)
				}
			case err != nil:
				t.Errorf("%s: %v", what, err)
			}
			r.settle()
			other.wantOneKey()
			r.wantOneKey()
			if t.Failed() {
				t.Fatal(what)
			}
		}
		if finished && n < 12 {
			t.Errorf("there were only %d calls to cut off", n)
		}
	}
}

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

func TestAbort(t *testing.T) {
	s := newSite(t)
	r, other := s.replica(s.user), s.replica(s.user)
	defer r.busy()()
	defer other.busy()()
	before := r.wantOneKey()
	// Deleting the old key fails: the rotation stands with it disabled.
	check(t, s.aws.Inject(devsts.Fault{Kind: devsts.Deny, Action: "DeleteAccessKey", Count: 1}))
	_, err := r.rotate(rotation.Request{})
	if !reason.Is(err, reason.KeyRotationBlocked) || !strings.Contains(err.Error(), "iam:DeleteAccessKey: AccessDenied") {
		t.Fatalf("got %v", err)
	}
	ids, active := s.aws.AccessKeys(userName)
	if len(ids) != 2 || active[0] || !active[1] {
		t.Fatalf("keys %v, active %v", ids, active)
	}
	steps, err := other.rotate(rotation.Request{Abort: true})
	if err != nil || steps[len(steps)-1] != rotation.Reverted {
		t.Fatalf("%v, %v", steps, err)
	}
	if after := r.wantOneKey(); after != before {
		t.Errorf("%s is used, not %s", after, before)
	}
	if _, err := r.rotate(rotation.Request{Abort: true}); !reason.Is(err, reason.KeyRotationBlocked) {
		t.Errorf("aborting nothing: %v", err)
	}
	// And again, to the end, and once more from a stored key.
	for range 2 {
		if _, err := r.rotate(rotation.Request{}); err != nil {
			t.Fatal(err)
		}
		r.wantOneKey()
	}
	check(t, s.aws.Inject(devsts.Fault{Kind: devsts.Deny, Action: "UpdateAccessKey", Count: 1}))
	if _, err := r.rotate(rotation.Request{}); err == nil {
		t.Fatal("disabling was denied and nobody noticed")
	}
	if _, err := r.rotate(rotation.Request{Abort: true}); err != nil {
		t.Fatal(err)
	}
	r.wantOneKey()
}

func TestBlocked(t *testing.T) {
	s := newSite(t)
	r := s.replica(s.user)
	blocked := func(what string, req rotation.Request, want string) {
		t.Helper()
		_, err := r.rotate(req)
		if !reason.Is(err, reason.KeyRotationBlocked) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", what, err, want)
		}
	}
	err := r.desk.Rotate(t.Context(), rotation.Request{Account: "nobody"}, nil)
	if !reason.Is(err, reason.NotFound) {
		t.Errorf("an unknown account: %v", err)
	}
	second := s.aws.AddAccessKey(userName)
	blocked("two keys", rotation.Request{}, "delete the other one, "+second.AccessKeyID+" (active")
	s.aws.ForgetAccessKey(second.AccessKeyID)
	for _, action := range []string{"ListAccessKeys", "CreateAccessKey"} {
		check(t, s.aws.Inject(devsts.Fault{Kind: devsts.Deny, Action: action, Count: 1}))
		blocked(action, rotation.Request{}, "iam:"+action+": AccessDenied")
	}
	// A key that somebody made meanwhile, and uses, is not ours to delete.
	theirs := s.aws.AddAccessKey(userName)
	if _, err := r.sts.CallerOf(t.Context(), aws.Credentials{AccessKeyID: theirs.AccessKeyID, SecretAccessKey: theirs.SecretAccessKey.Reveal()}); err != nil {
		t.Fatal(err)
	}
	blocked("somebody's key", rotation.Request{}, theirs.AccessKeyID)
	s.aws.ForgetAccessKey(theirs.AccessKeyID)
	// A replica that is listed and does not answer.
	s.mu.Lock()
	s.names = append(s.names, "0198c0de-0000-7000-8000-00000000dead")
	s.mu.Unlock()
	blocked("a dead replica", rotation.Request{}, "0198c0de-0000-7000-8000-00000000dead")
	if ids, active := s.aws.AccessKeys(userName); len(ids) != 2 || !active[0] || !active[1] {
		t.Errorf("keys %v, active %v: the old one must work while a replica may use it", ids, active)
	}
	if _, err := r.rotate(rotation.Request{Ignored: []string{"0198c0de-0000-7000-8000-00000000dead"}}); err != nil {
		t.Error(err)
	}
	r.wantOneKey()

	temporary := s.replica(devsts.User{Name: "x", AccessKeyID: "ASIATEMPORARY", SecretAccessKey: secret.New("x")})
	if _, err := temporary.rotate(rotation.Request{}); !reason.Is(err, reason.KeyRotationBlocked) || !strings.Contains(err.Error(), "temporary keys") {
		t.Errorf("temporary keys: %v", err)
	}
}

// The account is configured for another user while a rotation is under way. IAM
// knows that user's keys alone: nothing is taken for deleted that is not.
func TestUserConfiguredMeanwhile(t *testing.T) {
	s := newSite(t)
	r := s.replica(s.user)
	check(t, s.aws.Inject(devsts.Fault{Kind: devsts.Deny, Action: "UpdateAccessKey", Count: 1}))
	if _, err := r.rotate(rotation.Request{}); err == nil {
		t.Fatal("disabling was denied and nobody noticed")
	}
	somebody := s.aws.AddAccessKey("somebody")
	other := s.replica(somebody)
	_, err := other.rotate(rotation.Request{})
	if !reason.Is(err, reason.KeyRotationBlocked) || !strings.Contains(err.Error(), "user/somebody") || !strings.Contains(err.Error(), "user/"+userName) {
		t.Errorf("got %v", err)
	}
	// Given up, it leaves those keys to people, and each replica goes on with its own.
	used := r.used()
	if steps, err := other.rotate(rotation.Request{Abort: true}); err != nil || !slices.Equal(steps, []rotation.Step{rotation.Reverted}) {
		t.Errorf("%v, %v", steps, err)
	}
	if ids, active := s.aws.AccessKeys(userName); len(ids) != 2 || !active[0] || !active[1] {
		t.Errorf("keys %v, active %v", ids, active)
	}
	check(t, r.keys.Refresh(t.Context()))
	if now := r.used(); now != used || now == s.user.AccessKeyID {
		t.Errorf("%s is used, not the new key %s", now, used)
	}
	if now := other.used(); now != somebody.AccessKeyID {
		t.Errorf("%s is used, not the configured %s", now, somebody.AccessKeyID)
	}
}

// Verifying the old key takes so long that the claim is renewed meanwhile.
func TestAbortTakesLong(t *testing.T) {
	s := newSite(t)
	r := s.replica(s.user)
	before := r.wantOneKey()
	check(t, s.aws.Inject(devsts.Fault{Kind: devsts.Deny, Action: "UpdateAccessKey", Count: 1}))
	if _, err := r.rotate(rotation.Request{}); err == nil {
		t.Fatal("disabling was denied and nobody noticed")
	}
	r.desk.Interval = r.desk.Claim / 3
	if _, err := r.rotate(rotation.Request{Abort: true}); err != nil {
		t.Fatal(err)
	}
	if after := r.wantOneKey(); after != before {
		t.Errorf("%s is used, not %s", after, before)
	}
}

// A rotation was cut off while it created a key, and somebody went on by hand:
// another key is configured now. IAM may not know yet that it is used. It is
// never the one that is deleted, and the rotation begins anew with it.
func TestKeyConfiguredMeanwhile(t *testing.T) {
	s := newSite(t)
	r := s.replica(s.user)
	check(t, s.aws.Inject(devsts.Fault{Kind: devsts.Deny, Action: "CreateAccessKey", Count: 1}))
	if _, err := r.rotate(rotation.Request{}); err == nil {
		t.Fatal("creating was denied and nobody noticed")
	}
	r.stop()
	s.mu.Lock()
	s.names = nil
	s.mu.Unlock()
	byHand := s.aws.AddAccessKey(userName)
	late := s.replica(byHand)
	late.used()
	late.unused = byHand.AccessKeyID
	_, err := late.rotate(rotation.Request{})
	if !reason.Is(err, reason.KeyRotationBlocked) || !strings.Contains(err.Error(), "delete the other one, "+s.user.AccessKeyID) {
		t.Errorf("got %v, want the old key named as the one in the way", err)
	}
	if _, err := late.rotate(rotation.Request{Abort: true}); err != nil {
		t.Error(err)
	}
	if ids, active := s.aws.AccessKeys(userName); len(ids) != 2 || !active[0] || !active[1] {
		t.Fatalf("the user has the keys %v, active %v: the one in use must not be deleted", ids, active)
	}
	// Once more, to the end: the replacement is the one that is used.
	check(t, s.aws.Inject(devsts.Fault{Kind: devsts.Deny, Action: "ListAccessKeys", Count: 1}))
	if _, err := late.rotate(rotation.Request{}); err == nil {
		t.Fatal("listing was denied and nobody noticed")
	}
	s.aws.ForgetAccessKey(s.user.AccessKeyID)
	steps, err := late.rotate(rotation.Request{})
	if err != nil || !slices.Equal(steps, whole) {
		t.Fatalf("%v, %v", steps, err)
	}
	if now := late.wantOneKey(); now == byHand.AccessKeyID {
		t.Error("the key is the same")
	}
}

func TestDryRunDoesNothing(t *testing.T) {
	s := newSite(t)
	r := s.replica(s.user)
	before := s.aws.Calls()
	steps, err := r.rotate(rotation.Request{DryRun: true})
	if err != nil || !slices.Equal(steps, []rotation.Step{rotation.Planned}) {
		t.Fatalf("%v, %v", steps, err)
	}
	for action, n := range s.aws.Calls() {
		if action != "GetCallerIdentity" && n != before[action] {
			t.Errorf("%s was called", action)
		}
	}
	if rows, err := s.store.ListKeys(t.Context(), "account/main"); err != nil || len(rows) != 0 {
		t.Errorf("%d states, %v", len(rows), err)
	}
}

// Of runs at once one works, and the others are told to wait.
func TestTwoOperatorsAtOnce(t *testing.T) {
	s := newSite(t)
	replicas := []*replica{s.replica(s.user), s.replica(s.user), s.replica(s.user)}
	defer replicas[0].busy()()
	var all sync.WaitGroup
	for _, r := range replicas {
		all.Go(func() {
			if _, err := r.rotate(rotation.Request{}); err != nil && !reason.Is(err, reason.KeyRotationBlocked) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if _, err := replicas[0].wait(rotation.Request{}); err != nil {
		t.Error(err)
	}
	for _, r := range replicas {
		r.settle()
		r.wantOneKey()
	}
}

// STS may not know a new key everywhere at once: a replica that is told so uses
// the old one, within the same call.
func TestNewKeyUnknownForAMoment(t *testing.T) {
	s := newSite(t)
	r := s.replica(s.user)
	s.mu.Lock()
	s.names = append(s.names, "0198c0de-0000-7000-8000-00000000dead") // stops after the switch
	s.mu.Unlock()
	if _, err := r.rotate(rotation.Request{}); err == nil {
		t.Fatal("a replica was not waited for")
	}
	ids, _ := s.aws.AccessKeys(userName)
	if len(ids) != 2 || r.used() != ids[1] {
		t.Fatalf("keys %v, %s is used", ids, r.used())
	}
	s.aws.ForgetAccessKey(ids[1])
	check(t, r.issue())
	if used := r.used(); used != ids[0] {
		t.Errorf("%s is used after the new key was refused", used)
	}
}
