package agentapi_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/agentapi"
	"github.com/stokerd/stoker/server/internal/lease"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

func slogOf(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

func TestGetCredentials(t *testing.T) {
	b := serve(t)
	b.grant("a", "b", "c")
	for _, g := range []string{"a", "b", "c"} {
		b.issue(g, 10)
	}
	client := stokerv1.NewCredentialServiceClient(b.dial(t))
	get := func(grants ...string) (*stokerv1.GetCredentialsResponse, error) {
		return client.GetCredentials(as(t.Context(), "agent-1"), &stokerv1.GetCredentialsRequest{Grants: grants})
	}
	for _, test := range []struct{ ask, want []string }{
		{[]string{"c", "a"}, []string{"c", "a"}},
		{[]string{"b", "a", "b"}, []string{"b", "a", "b"}},
		{nil, []string{"a", "b", "c"}},
	} {
		answer, err := get(test.ask...)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmtGrants(answer.GetCredentials()); got != fmt.Sprint(test.want) {
			t.Errorf("asked for %q, got %s", test.ask, got)
		}
	}

	// A disabled grant is not among all, and refused by its lease.
	b.mu.Lock()
	off := b.grants["b"]
	off.Disabled = true
	b.grants["b"] = off
	b.mu.Unlock()
	answer, err := get()
	if err != nil || fmtGrants(answer.GetCredentials()) != "[a c]" {
		t.Errorf("all: %v %v", answer, err)
	}
}

// If one grant fails there is no answer, and the error names it.
func TestGetCredentialsIsAllOrNothing(t *testing.T) {
	b := serve(t)
	b.grant("a", "b", "c")
	b.issue("a", 10)
	b.issue("c", 10)
	client := stokerv1.NewCredentialServiceClient(b.dial(t))
	_, err := client.GetCredentials(as(t.Context(), "agent-1"), &stokerv1.GetCredentialsRequest{Grants: []string{"a", "b", "c"}})
	st := wantReason(t, err, reason.STSThrottled)
	var named, retry bool
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			named = d.GetMetadata()["grant"] == "b"
		case *errdetails.RetryInfo:
			retry = d.GetRetryDelay().AsDuration() == time.Second
		}
	}
	if !named || !retry {
		t.Errorf("details %v", st.Details())
	}
}

// All leave together: what one of them lost while it waited for another is not
// handed out.
func TestGetCredentialsLostWhileWaiting(t *testing.T) {
	b := serve(t)
	b.grant("quick", "slow")
	first, second := lease.Credential{ID: "1", Grant: "quick"}, lease.Credential{ID: "2", Grant: "quick"}
	var lost atomic.Pointer[reason.Error]
	var replaced atomic.Bool
	change := func() {}
	b.fetch = func(_ context.Context, grantID string, minLife time.Duration) (lease.Credential, error) {
		switch why := lost.Load(); {
		case grantID == "slow":
			change()
			return lease.Credential{ID: "s", Grant: "slow"}, nil
		case why != nil:
			return lease.Credential{}, why
		case replaced.Load():
			return second, nil
		}
		return first, nil
	}
	client := stokerv1.NewCredentialServiceClient(b.dial(t))
	get := func() ([]*stokerv1.Credential, error) {
		answer, err := client.GetCredentials(as(t.Context(), "agent-1"), &stokerv1.GetCredentialsRequest{Grants: []string{"quick", "slow"}})
		return answer.GetCredentials(), err
	}
	got, err := get()
	if err != nil || len(got) != 2 || got[0].GetId() != "1" {
		t.Fatalf("nothing lost: %v, %v", got, err)
	}
	change = func() { <-time.After(10 * time.Millisecond); replaced.Store(true) }
	if got, err = get(); err != nil || got[0].GetId() != "2" {
		t.Errorf("replaced: %v, %v", got, err)
	}
	change = func() {
		<-time.After(10 * time.Millisecond)
		lost.Store(reason.New(reason.GrantDeleted, "gone"))
	}
	_, err = get()
	wantReason(t, err, reason.GrantDeleted)
}

func TestGetCredentialsRefusals(t *testing.T) {
	b := serve(t)
	b.grant("a")
	b.issue("a", 10)
	b.mu.Lock()
	b.grants["d"] = storage.Grant{Meta: storage.Meta{ID: "d"}, TenantID: "t2", Name: "d"}
	b.mu.Unlock()
	client := stokerv1.NewCredentialServiceClient(b.dial(t))
	many := make([]string, 101)
	for i := range many {
		many[i] = "a"
	}
	for _, test := range []struct {
		name string
		r    *stokerv1.GetCredentialsRequest
		want reason.Reason
	}{
		{"unknown", &stokerv1.GetCredentialsRequest{Grants: []string{"a", "none"}}, reason.GrantUnknown},
		{"of another tenant", &stokerv1.GetCredentialsRequest{Grants: []string{"d"}}, reason.GrantUnknown},
		{"no name", &stokerv1.GetCredentialsRequest{Grants: []string{""}}, reason.InvalidRequest},
		{"strange name", &stokerv1.GetCredentialsRequest{Grants: []string{"${aws:username}"}}, reason.InvalidRequest},
		{"long name", &stokerv1.GetCredentialsRequest{Grants: []string{strings.Repeat("a", 1<<20)}}, reason.InvalidRequest},
		{"101 grants", &stokerv1.GetCredentialsRequest{Grants: many}, reason.InvalidRequest},
		{"negative life", &stokerv1.GetCredentialsRequest{MinLife: durationpb.New(-time.Second)}, reason.InvalidRequest},
		{"malformed life", &stokerv1.GetCredentialsRequest{MinLife: &durationpb.Duration{Seconds: 1, Nanos: -1}}, reason.InvalidRequest},
		{"endless life", &stokerv1.GetCredentialsRequest{MinLife: &durationpb.Duration{Seconds: 1 << 60}}, reason.InvalidRequest},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := client.GetCredentials(as(t.Context(), "agent-1"), test.r)
			wantReason(t, err, test.want)
		})
	}
}

func TestGetCredentialsPassesMinLife(t *testing.T) {
	b := serve(t)
	b.grant("a")
	var asked atomic.Int64
	b.fetch = func(_ context.Context, grantID string, minLife time.Duration) (lease.Credential, error) {
		asked.Store(int64(minLife))
		return *newCredential(grantID, 1), nil
	}
	client := stokerv1.NewCredentialServiceClient(b.dial(t))
	for _, want := range []time.Duration{0, 17 * time.Minute} {
		r := &stokerv1.GetCredentialsRequest{Grants: []string{"a"}}
		if want > 0 {
			r.MinLife = durationpb.New(want)
		}
		if _, err := client.GetCredentials(as(t.Context(), "agent-1"), r); err != nil {
			t.Fatal(err)
		}
		if got := time.Duration(asked.Load()); got != want {
			t.Errorf("the lease was asked for %s, want %s", got, want)
		}
	}
}

// Who stops being good while credentials are fetched gets none of them.
func TestGetCredentialsChecksAtTheEnd(t *testing.T) {
	b := serve(t)
	b.grant("a")
	b.fetch = func(_ context.Context, grantID string, _ time.Duration) (lease.Credential, error) {
		b.refuse("t1", reason.TenantDisabled)
		return *newCredential(grantID, 1), nil
	}
	_, err := stokerv1.NewCredentialServiceClient(b.dial(t)).GetCredentials(as(t.Context(), "agent-1"), &stokerv1.GetCredentialsRequest{})
	wantReason(t, err, reason.TenantDisabled)
}

// One failure ends the waiting for the others; an error without a reason is
// not explained.
func TestGetCredentialsFailsAtOnce(t *testing.T) {
	b := serve(t)
	b.grant("a", "b")
	b.fetch = func(ctx context.Context, grantID string, _ time.Duration) (lease.Credential, error) {
		if grantID == "b" {
			return lease.Credential{}, errors.New("host db-3 is down")
		}
		<-ctx.Done()
		return lease.Credential{}, ctx.Err()
	}
	_, err := stokerv1.NewCredentialServiceClient(b.dial(t)).GetCredentials(as(t.Context(), "agent-1"), &stokerv1.GetCredentialsRequest{})
	if st := wantReason(t, err, reason.Internal); strings.Contains(st.Message(), "db-3") {
		t.Errorf("the caller was told %q", st.Message())
	}
}

func TestGetCredentialsIsCancelled(t *testing.T) {
	b := serve(t)
	b.grant("a")
	waiting := make(chan struct{})
	b.fetch = func(ctx context.Context, _ string, _ time.Duration) (lease.Credential, error) {
		close(waiting)
		<-ctx.Done()
		return lease.Credential{}, ctx.Err()
	}
	ctx, cancel := context.WithCancel(as(t.Context(), "agent-1"))
	go func() {
		<-waiting
		cancel()
	}()
	_, err := stokerv1.NewCredentialServiceClient(b.dial(t)).GetCredentials(ctx, &stokerv1.GetCredentialsRequest{})
	wantCode(t, err, codes.Canceled)
}

func TestListGrants(t *testing.T) {
	b := serve(t)
	b.grant("a", "b", "c", "d")
	b.mu.Lock()
	for name, edit := range map[string]func(*storage.Grant){
		"b": func(g *storage.Grant) { g.Disabled = true },
		"c": func(g *storage.Grant) { g.Access, g.Lifetime = "maintain", 15*time.Minute },
		"d": func(g *storage.Grant) { g.Access = "actions" },
	} {
		g := b.grants[name]
		edit(&g)
		b.grants[name] = g
	}
	b.mu.Unlock()
	answer, err := stokerv1.NewCredentialServiceClient(b.dial(t)).ListGrants(as(t.Context(), "agent-1"), &stokerv1.ListGrantsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	target := func(prefix string) *stokerv1.Target {
		return &stokerv1.Target{
			Bucket: "backups", Prefix: prefix, Region: "eu-west-1",
			Endpoint: "https://s3.example", KmsKeyArn: "arn:aws:kms:eu-west-1:111122223333:key/k",
		}
	}
	want := &stokerv1.ListGrantsResponse{Grants: []*stokerv1.GrantSummary{
		{Name: "a", Target: target("tenant-1/a/"), Access: stokerv1.Access_ACCESS_BACKUP, Lifetime: durationpb.New(time.Hour)},
		{Name: "c", Target: target("tenant-1/c/"), Access: stokerv1.Access_ACCESS_MAINTAIN, Lifetime: durationpb.New(15 * time.Minute)},
		{Name: "d", Target: target("tenant-1/d/"), Access: stokerv1.Access_ACCESS_ACTIONS, Lifetime: durationpb.New(time.Hour)},
	}}
	if diff := cmp.Diff(want, answer, protocmp.Transform()); diff != "" {
		t.Errorf("the answer differs (-want +got):\n%s", diff)
	}

	b.mu.Lock()
	b.grants = map[string]storage.Grant{
		"a": {Meta: storage.Meta{ID: "a"}, TenantID: "t1", Name: "a", LocationID: "gone"},
		"b": {Meta: storage.Meta{ID: "b"}, TenantID: "t1", Name: "b", LocationID: "l", Access: "restore"},
		"c": {Meta: storage.Meta{ID: "c"}, TenantID: "t1", Name: "c", LocationID: "l", Access: "not known here"},
	}
	b.mu.Unlock()
	answer, err = stokerv1.NewCredentialServiceClient(b.dial(t)).ListGrants(as(t.Context(), "agent-1"), &stokerv1.ListGrantsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got := answer.GetGrants(); len(got) != 2 || got[0].GetAccess() != stokerv1.Access_ACCESS_RESTORE || got[1].GetAccess() != stokerv1.Access_ACCESS_UNSPECIFIED {
		t.Errorf("got %v", answer)
	}
}

func TestSessions(t *testing.T) {
	b := serve(t)
	client := stokerv1.NewSessionServiceClient(b.dial(t))
	ctx := as(t.Context(), "agent-1")
	identity := &stokerv1.Identity{
		SpiffeId: "spiffe://stoker.test/tenant/tenant-1/agent/agent-1", CertificateSerial: "5e",
		CertificateExpireTime: timestamppb.New(certificateEnd), Tenant: "tenant-1", Agent: "agent-1", Login: "ann",
	}
	who, err := client.GetSession(ctx, &stokerv1.GetSessionRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(identity, who.GetIdentity(), protocmp.Transform()); diff != "" {
		t.Errorf("who (-want +got):\n%s", diff)
	}
	if since := time.Since(who.GetServerTime().AsTime()); since < 0 || since > time.Minute {
		t.Errorf("the broker's clock is %s behind", since)
	}

	made, err := client.CreateSession(ctx, &stokerv1.CreateSessionRequest{})
	if err != nil {
		t.Fatal(err)
	}
	identity.SessionId, identity.SessionExpireTime = "session-1", timestamppb.New(sessionEnd)
	want := &stokerv1.CreateSessionResponse{AccessToken: "the-token", ExpireTime: timestamppb.New(sessionEnd), Identity: identity}
	if diff := cmp.Diff(want, made, protocmp.Transform()); diff != "" {
		t.Errorf("created (-want +got):\n%s", diff)
	}

	if _, err := client.DeleteSession(ctx, &stokerv1.DeleteSessionRequest{}); err != nil {
		t.Error(err)
	}
	if len(b.ended) != 1 {
		t.Errorf("ended: %q", b.ended)
	}
	b.refuse("agent-1", reason.AuditUnavailable)
	if _, err := client.CreateSession(ctx, &stokerv1.CreateSessionRequest{}); err == nil {
		t.Error("a session without an audit record")
	} else {
		wantReason(t, err, reason.AuditUnavailable)
	}
	_, err = client.DeleteSession(ctx, &stokerv1.DeleteSessionRequest{})
	wantReason(t, err, reason.AuditUnavailable)
}

func TestConstructors(t *testing.T) {
	if _, err := agentapi.NewCredentialService(agentapi.CredentialConfig{}); err == nil {
		t.Error("a credential service of nothing")
	}
	if _, err := agentapi.NewSessionService(nil); err == nil {
		t.Error("a session service of nothing")
	}
}
