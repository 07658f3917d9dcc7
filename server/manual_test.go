package server_test

import (
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/stokerd/stoker/proto/manual"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/authn"
)

// callerOf is how the comments of the protos tell a rule.
func callerOf(r authn.Rule) string {
	switch {
	case r.Anonymous:
		return "anybody who has a join token, on the enrollment listener"
	case r.Services:
		return "a service"
	case r.Operators == authn.RoleAdmin:
		return "an operator with the role admin"
	case r.Operators != "":
		return "an operator with the role " + string(r.Operators) + " or higher"
	}
	return map[authn.Login]string{
		authn.CertificateAlone: "an agent, by its certificate alone",
		authn.AnyLogin:         "an agent with a user's login",
		authn.PasswordLogin:    "an agent with a user's password",
		authn.TokenLogin:       "an agent with an access token",
	}[r.Agents]
}

// calls are all calls of the API by full method name, with their comments.
func calls(t *testing.T) map[string]string {
	t.Helper()
	files, err := manual.Load()
	wantOK(t, err)
	comments := map[string]string{}
	files.Range(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			for j := range s.Methods().Len() {
				m := s.Methods().Get(j)
				text := strings.Join(strings.Fields(f.SourceLocations().ByDescriptor(m).LeadingComments), " ")
				comments["/"+string(s.FullName())+"/"+string(m.Name())] = text
			}
		}
		return true
	})
	return comments
}

// The protos say of each call who may make it, as the broker decides it, and
// with which reasons it refuses, by names that exist.
func TestCommentsSayWhoMayCallAndWhatIsRefused(t *testing.T) {
	caller := regexp.MustCompile(`Caller: ([^.]+)\.`)
	refusals := regexp.MustCompile(`Refusals: ([^.]+)\.$`)
	shouted := regexp.MustCompile(`[A-Z]{2,}(_[A-Z]+)+`)
	rules := authn.Rules()
	for method, text := range calls(t) {
		rule, known := rules[method]
		if !known {
			t.Errorf("%s has no rule", method)
			continue
		}
		if m := caller.FindStringSubmatch(text); m == nil || m[1] != callerOf(rule) {
			t.Errorf("%s: the comment should say %q; it says %v", method, "Caller: "+callerOf(rule)+".", m)
		}
		m := refusals.FindStringSubmatch(text)
		if m == nil {
			t.Errorf("%s: the comment does not end with its refusals", method)
			continue
		}
		for _, name := range shouted.FindAllString(m[1], -1) {
			if _, ok := stokerv1.ErrorReason_value["ERROR_REASON_"+name]; !ok {
				t.Errorf("%s: there is no reason %s", method, name)
			}
		}
	}
}
