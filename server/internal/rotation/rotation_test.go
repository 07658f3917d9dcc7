package rotation_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/issuer/devsts"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/rotation"
	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
)

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
	patience := r.desk.Patience
	r.hurry()
	blocked("a dead replica", rotation.Request{}, "0198c0de-0000-7000-8000-00000000dead")
	r.desk.Patience = patience
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
	r.hurry()
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
