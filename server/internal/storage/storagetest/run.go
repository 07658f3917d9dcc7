package storagetest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/stokerd/stoker/server/internal/storage"
)

// Harness says how the suite gets at a backend.
type Harness struct {
	// Fresh makes an empty database for one test, and returns what opens it.
	Fresh func(t *testing.T) Opener
	// Replicas says that stores which are open on the same database at the
	// same time hear of each other's changes. Without it the suite opens one
	// at a time.
	Replicas bool
}

// Opener opens a store on the database it was made for. The suite closes it.
type Opener func(t *testing.T, o Options) storage.Store

// Options are what the suite wants of a store.
type Options struct {
	// KeepChanges is how many entries of the change feed are kept; 0 leaves
	// it to the backend.
	KeepChanges int64
}

// Run tests the backend.
func Run(t *testing.T, h Harness) {
	groups := []struct {
		name  string
		cases map[string]func(t *testing.T, open Opener)
	}{
		{"Directory", directoryCases},
		{"Enrollment", enrollmentCases},
		{"Keys", keyCases},
		{"Revocations", revocationCases},
		{"Feed", feedCases},
		{"Audit", auditCases},
		{"Lifecycle", lifecycleCases},
	}
	if h.Replicas {
		groups = append(groups, struct {
			name  string
			cases map[string]func(t *testing.T, open Opener)
		}{"Replicas", replicaCases})
	}
	for _, g := range groups {
		t.Run(g.name, func(t *testing.T) {
			for name, run := range g.cases {
				t.Run(name, func(t *testing.T) { run(t, h.Fresh(t)) })
			}
		})
	}
}

// one adapts a case that needs a single store.
func one(run func(t *testing.T, s storage.Store)) func(*testing.T, Opener) {
	return func(t *testing.T, open Opener) { run(t, start(t, open)) }
}

// start opens a store that closes with the test.
func start(t *testing.T, open Opener) storage.Store {
	t.Helper()
	s := open(t, Options{})
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// newID makes an id as the callers of the store do.
func newID(t *testing.T) string {
	t.Helper()
	id, err := uuid.NewV7()
	if err != nil {
		t.Fatal(err)
	}
	return id.String()
}

func newMeta(t *testing.T) storage.Meta { return storage.Meta{ID: newID(t)} }

// moment is a time with more precision and another zone than is kept.
func moment(minutes int) time.Time {
	zone := time.FixedZone("test", 3*60*60)
	return time.Date(2031, 5, 6, 7, 8, 9, 123456789, zone).Add(time.Duration(minutes) * time.Minute)
}

// kept is what is kept of a time.
func kept(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Microsecond)
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantError(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error is %v, want %v", err, want)
	}
}

func same[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// told runs f and checks which changes it made.
func told(t *testing.T, s storage.Store, f func(), want ...storage.Change) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	before := must[int64](t)(s.Head(ctx))
	f()
	changes, err := s.Changes(ctx, before, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var got []storage.Change
	for i, c := range changes {
		if c.Sequence != before+int64(i)+1 {
			t.Errorf("change %d has sequence %d after head %d", i, c.Sequence, before)
		}
		c.Sequence = 0
		got = append(got, c)
	}
	same(t, "changes", got, want)
	if head := must[int64](t)(s.Head(ctx)); head != before+int64(len(got)) {
		t.Errorf("head is %d after %d changes from %d", head, len(got), before)
	}
}

// race runs f n times at once and returns the errors, by i.
func race(n int, f func(i int) error) []error {
	begin := make(chan struct{})
	errs := make([]error, n)
	var racers sync.WaitGroup
	for i := range n {
		racers.Go(func() {
			<-begin
			errs[i] = f(i)
		})
	}
	close(begin)
	racers.Wait()
	return errs
}

// oneWinner checks that one of the racers succeeded and the others got want.
func oneWinner(t *testing.T, errs []error, want error) {
	t.Helper()
	winners := 0
	for _, err := range errs {
		if err == nil {
			winners++
		} else {
			wantError(t, err, want)
		}
	}
	if winners != 1 {
		t.Errorf("%d of %d succeeded, want one", winners, len(errs))
	}
}

// The parents that most tests need.

func addTenant(t *testing.T, s storage.Store, name string) storage.Tenant {
	t.Helper()
	return must[storage.Tenant](t)(s.CreateTenant(t.Context(), storage.Tenant{Meta: newMeta(t), Name: name}))
}

func addUser(t *testing.T, s storage.Store, tenantID, login string) storage.User {
	t.Helper()
	return must[storage.User](t)(s.CreateUser(t.Context(), storage.User{
		Meta: newMeta(t), TenantID: tenantID, Login: login, PasswordHash: "$argon2id$of-" + login, PasswordVersion: 1}))
}

func addAgent(t *testing.T, s storage.Store, tenantID, name string) storage.Agent {
	t.Helper()
	return must[storage.Agent](t)(s.CreateAgent(t.Context(), storage.Agent{Meta: newMeta(t), TenantID: tenantID, Name: name}))
}

func addLocation(t *testing.T, s storage.Store, name string) storage.Location {
	t.Helper()
	return must[storage.Location](t)(s.CreateLocation(t.Context(), storage.Location{
		Meta: newMeta(t), Name: name, Account: "main", Bucket: "bucket"}))
}

func addGrant(t *testing.T, s storage.Store, tenantID, userID, locationID, name string) storage.Grant {
	t.Helper()
	return must[storage.Grant](t)(s.CreateGrant(t.Context(), storage.Grant{
		Meta: newMeta(t), TenantID: tenantID, UserID: userID, LocationID: locationID, Name: name,
		Prefix: "p/", Access: "backup", Lifetime: time.Hour}))
}

// result drops the value of a call that is made for its error.
func result[T any](_ T, err error) error { return err }

func isOneOf(err error, targets ...error) bool {
	for _, target := range targets {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}
