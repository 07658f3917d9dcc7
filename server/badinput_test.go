package server_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/brokertest"
	"github.com/stokerd/stoker/server/internal/reason"
)

// A grant that there is not, and one that is another's, are the same to the
// caller.
func TestGrantsThatAreNotTheCallers(t *testing.T) {
	b := site(t, brokertest.Options{})
	acme, other := join(t, b, "acme", time.Hour), join(t, b, "other", time.Hour)
	b.Grant(&stokerv1.Grant{Tenant: "other", Name: "weekly", Location: "main", Prefix: "other-weekly/", Access: stokerv1.Access_ACCESS_RESTORE}, time.Hour)
	b.User("acme", "second")
	b.Grant(&stokerv1.Grant{
		Tenant: "acme", Login: "second", Name: "private", Location: "main", Prefix: "acme-private/", Access: stokerv1.Access_ACCESS_RESTORE,
	}, time.Hour)
	var answers []string
	for _, c := range []struct {
		grant string
		want  reason.Reason
	}{
		{"yearly", reason.GrantUnknown},
		{"weekly", reason.GrantUnknown},
		{"private", reason.GrantUnknown},
		{"other/weekly", reason.InvalidRequest},
		{"*", reason.InvalidRequest},
		{"", reason.InvalidRequest},
		{strings.Repeat("g", 64), reason.InvalidRequest},
	} {
		t.Run(c.grant, func(t *testing.T) {
			_, err := acme.fetch(t, c.grant)
			st := wantReason(t, err, c.want)
			if c.want != reason.GrantUnknown {
				s := subscribe(t, acme, c.grant)
				s.end()
				wantReason(t, s.err, c.want)
				return
			}
			answers = append(answers, strings.ReplaceAll(st.Message(), c.grant, "GRANT"))
			s := subscribe(t, acme, c.grant)
			if p := s.problem(c.want); p.GetGrant() != c.grant || p.GetRetryTime() != nil {
				t.Errorf("problem %v", p)
			}
			// The stream goes on with what is the caller's.
			s.say(&stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_Subscribe{
				Subscribe: &stokerv1.Subscribe{Grants: []string{"nightly"}},
			}})
			if got := s.credential(); got.GetGrant() != "nightly" {
				t.Errorf("credential %v", got)
			}
		})
	}
	if len(answers) != 3 || answers[0] != answers[1] || answers[0] != answers[2] {
		t.Errorf("the answers differ: %q", answers)
	}
	if listed, err := stokerv1.NewCredentialServiceClient(acme.conn).ListGrants(acme.ctx(t), &stokerv1.ListGrantsRequest{}); err != nil ||
		len(listed.GetGrants()) != 1 || listed.GetGrants()[0].GetName() != "nightly" {
		t.Errorf("listed %v, %v", listed, err)
	}
	acme.works(t)
	other.works(t)
}

// Prefixes that would widen a policy, or that no policy can carry, are refused
// when the grant is made: no tenant's text gets any further.
func TestPrefixesThatAreRefused(t *testing.T) {
	b := site(t, brokertest.Options{})
	acme := join(t, b, "acme", time.Hour)
	join(t, b, "other", time.Hour)
	for name, prefix := range map[string]string{
		"a star": "acme2/*/", "a question mark": "acme2/?/", "a variable": "acme2/${aws:username}/", "a dollar": "acme2/$/",
		"a climb": "acme2/../other/", "a dot": "acme2/./", "no slash at the end": "acme2", "a slash at the start": "/acme2/",
		"two slashes": "acme2//x/", "not Latin-1": "acme2/\u0430/", "an emoji": "acme2/\U0001f600/", "900 characters": strings.Repeat("a", 899) + "/",
		"nothing": "", "a slash": "/", "a line break": "acme2/\n/", "inside another tenant's": "other/inner/", "another tenant's": "other/",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := stokerv1.NewGrantServiceClient(b.Admin).CreateGrant(t.Context(), &stokerv1.CreateGrantRequest{Grant: &stokerv1.Grant{
				Tenant: "acme", Name: "hostile", Location: "main", Prefix: prefix, Access: stokerv1.Access_ACCESS_BACKUP, Lifetime: durationpb.New(time.Hour),
			}})
			wantReason(t, err, reason.InvalidRequest)
			_, err = acme.fetch(t, "hostile")
			wantReason(t, err, reason.GrantUnknown)
		})
	}
	for _, issued := range b.STS.Issued() {
		t.Errorf("STS was asked for %s", issued.Policy)
	}
	acme.works(t)
}

func TestRequestsThatAreTooLarge(t *testing.T) {
	b := site(t, brokertest.Options{})
	acme := join(t, b, "acme", time.Hour)
	t.Run("unary", func(t *testing.T) {
		_, err := acme.fetch(t, strings.Repeat("g", 300<<10))
		if !isCode(err, codes.ResourceExhausted) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("the first of a stream", func(t *testing.T) {
		s := subscribe(t, acme, strings.Repeat("g", 300<<10))
		s.end()
		if !isCode(s.err, codes.ResourceExhausted) {
			t.Errorf("got %v", s.err)
		}
	})
	t.Run("in a stream", func(t *testing.T) {
		s := subscribe(t, acme)
		s.credential()
		s.say(&stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_Acknowledge{
			Acknowledge: &stokerv1.Acknowledge{CredentialId: strings.Repeat("c", 300<<10)},
		}})
		s.end()
		if !isCode(s.err, codes.ResourceExhausted) {
			t.Errorf("got %v", s.err)
		}
	})
	t.Run("more grants than a call may name", func(t *testing.T) {
		names := make([]string, 101)
		for i := range names {
			names[i] = "nightly"
		}
		_, err := acme.fetch(t, names...)
		wantReason(t, err, reason.InvalidRequest)
		s := subscribe(t, acme, names...)
		s.end()
		wantReason(t, s.err, reason.InvalidRequest)
	})
	acme.works(t)
}

// A call that is not served at all says so, and is nobody's secret.
func TestUnknownCalls(t *testing.T) {
	b := site(t, brokertest.Options{})
	acme := join(t, b, "acme", time.Hour)
	for _, method := range []string{
		"/stoker.v1.CredentialService/Steal", "/stoker.v1.NoService/Get", "/stoker.v1.CredentialService/GetCredentials/",
		"/stoker.v1.CredentialService/getcredentials", "//stoker.v1.CredentialService/GetCredentials", "/",
	} {
		err := acme.conn.Invoke(acme.ctx(t), method, &stokerv1.GetCredentialsRequest{}, &stokerv1.GetCredentialsResponse{})
		if code := status.Code(err); code != codes.Unimplemented {
			t.Errorf("%s: %v", method, err)
		}
	}
	acme.works(t)
}
