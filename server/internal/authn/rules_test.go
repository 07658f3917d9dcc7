package authn

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stokerd/stoker/server/internal/reason"
)

// expected says again, method by method and apart from the table, who is let
// in: a changed rule must be meant twice. The letters are: a an agent without
// a login, p with a password, t with an access token; s a service; v, o, x an
// operator with the role viewer, operator or admin.
var expected = map[string]string{
	"/stoker.v1.CredentialService/StreamCredentials": "pt",
	"/stoker.v1.CredentialService/GetCredentials":    "pt",
	"/stoker.v1.CredentialService/ListGrants":        "pt",
	"/stoker.v1.SessionService/CreateSession":        "p",
	"/stoker.v1.SessionService/GetSession":           "pt",
	"/stoker.v1.SessionService/DeleteSession":        "t",

	"/stoker.v1.EnrollmentService/Enroll":           "",
	"/stoker.v1.EnrollmentService/RenewCertificate": "apt",

	"/stoker.v1.DelegationService/IssueCredentials":  "s",
	"/stoker.v1.DelegationService/StreamCredentials": "s",
	"/stoker.v1.AccountService/RotateAccountKey":     "x",
	"/stoker.v1.DelegationService/IntrospectSession": "s",

	"/stoker.v1.TenantService/CreateTenant": "x",
	"/stoker.v1.TenantService/GetTenant":    "vox",
	"/stoker.v1.TenantService/ListTenants":  "vox",
	"/stoker.v1.TenantService/UpdateTenant": "x",
	"/stoker.v1.TenantService/DeleteTenant": "x",

	"/stoker.v1.UserService/CreateUser": "ox",
	"/stoker.v1.UserService/GetUser":    "vox",
	"/stoker.v1.UserService/ListUsers":  "vox",
	"/stoker.v1.UserService/UpdateUser": "ox",
	"/stoker.v1.UserService/DeleteUser": "x",

	"/stoker.v1.AgentService/CreateAgent":           "ox",
	"/stoker.v1.AgentService/GetAgent":              "vox",
	"/stoker.v1.AgentService/ListAgents":            "vox",
	"/stoker.v1.AgentService/UpdateAgent":           "ox",
	"/stoker.v1.AgentService/DeleteAgent":           "x",
	"/stoker.v1.AgentService/InviteAgent":           "ox",
	"/stoker.v1.AgentService/IssueAgentCertificate": "ox",

	"/stoker.v1.LocationService/CreateLocation": "x",
	"/stoker.v1.LocationService/GetLocation":    "vox",
	"/stoker.v1.LocationService/ListLocations":  "vox",
	"/stoker.v1.LocationService/UpdateLocation": "x",
	"/stoker.v1.LocationService/DeleteLocation": "x",

	"/stoker.v1.GrantService/CreateGrant":  "ox",
	"/stoker.v1.GrantService/GetGrant":     "vox",
	"/stoker.v1.GrantService/ListGrants":   "vox",
	"/stoker.v1.GrantService/ExplainGrant": "vox",
	"/stoker.v1.GrantService/UpdateGrant":  "ox",
	"/stoker.v1.GrantService/DeleteGrant":  "x",

	"/stoker.v1.FleetService/ListStreams":     "vox",
	"/stoker.v1.FleetService/WatchEvents":     "vox",
	"/stoker.v1.FleetService/GetStatus":       "vox",
	"/stoker.v1.FleetService/Diagnose":        "ox",
	"/stoker.v1.FleetService/Revoke":          "ox",
	"/stoker.v1.FleetService/ListRevocations": "vox",

	"/stoker.v1.AuditService/ListRecords": "vox",
	"/stoker.v1.AuditService/WhoIs":       "vox",
	"/stoker.v1.AuditService/Verify":      "vox",

	"/grpc.health.v1.Health/Check": "aptsvox",
	"/grpc.health.v1.Health/List":  "aptsvox",
	"/grpc.health.v1.Health/Watch": "aptsvox",

	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      "aptsvox",
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": "aptsvox",

	// Without a rule nobody gets in.
	"/stoker.v1.FleetService/Destroy":           "",
	"/stoker.v1.fleetservice/revoke":            "",
	"stoker.v1.FleetService/Revoke":             "",
	"/stoker.v1.FleetService/Revoke/":           "",
	"//stoker.v1.FleetService/Revoke":           "",
	"/grpc.health.v1.Health/Check\x00":          "",
	"":                                          "",
	"/grpc.channelz.v1.Channelz/GetTopChannels": "",
}

// refusedWith is the reason that a caller who is not let in must get.
func refusedWith(letter rune, allowed string) reason.Reason {
	has := func(letters string) bool {
		for _, l := range letters {
			for _, a := range allowed {
				if l == a {
					return true
				}
			}
		}
		return false
	}
	switch {
	case (letter == 'v' || letter == 'o') && has("vox"):
		return reason.RoleTooLow
	case (letter == 'a' || letter == 'p' || letter == 't') && has("apt"):
		return reason.LoginRequired
	default:
		return reason.CallNotAllowed
	}
}

func TestEveryMethodAgainstEveryCaller(t *testing.T) {
	s := newSite(t)
	agent := s.agent("acme", "nas-1")
	token := bearer(s.session(agent).Token)
	callers := map[rune]struct {
		peer          Peer
		authorization []string
	}{
		'a': {agent, nil},
		'p': {agent, basic("alice@acme", password)},
		't': {agent, token},
		's': {s.service("restore"), nil},
		'v': {s.operator("vera"), nil},
		'o': {s.operator("otto"), nil},
		'x': {s.operator("ada"), nil},
	}
	for method, allowed := range expected {
		for letter, caller := range callers {
			want := reason.Reason("")
			if !regexp.MustCompile("[" + allowed + " ]").MatchString(string(letter)) {
				want = refusedWith(letter, allowed)
			}
			if _, err := s.Authenticate(t.Context(), caller.peer, method, caller.authorization); reason.Of(err) != want {
				t.Errorf("%s by %c: %v, want %q", method, letter, err, want)
			}
		}
		if _, err := s.Authenticate(t.Context(), Peer{}, method, token); !reason.Is(err, reason.CertificateRequired) {
			t.Errorf("%s without a certificate: %v", method, err)
		}
		// Another tenant's user gets in nowhere.
		_, err := s.Authenticate(t.Context(), s.agent("umbra", "nas-1"), method, basic("alice@acme", password))
		if regexp.MustCompile("p").MatchString(allowed) != (err == nil || reason.Is(err, reason.TenantMismatch)) {
			t.Errorf("%s by another tenant's agent: %v", method, err)
		}
	}
	for method := range Rules() {
		if _, ok := expected[method]; !ok {
			t.Errorf("%s has a rule and no expectation", method)
		}
	}
	for method, allowed := range expected {
		if _, ok := Rules()[method]; !ok && allowed != "" {
			t.Errorf("%s has an expectation and no rule", method)
		}
	}
}

func TestAnonymous(t *testing.T) {
	for method := range expected {
		err := Anonymous(method)
		if want := method == "/stoker.v1.EnrollmentService/Enroll"; want != (err == nil) {
			t.Errorf("%s on the enrollment listener: %v", method, err)
		}
		if err != nil && !reason.Is(err, reason.CallNotAllowed) {
			t.Errorf("%s: %v", method, err)
		}
	}
}

// Every call that the API defines must have a rule: without one it would be
// served to nobody, and found out late.
func TestEveryCallOfTheAPIHasARule(t *testing.T) {
	files, err := filepath.Glob("../../../proto/stoker/v1/*_service.proto")
	if err != nil || len(files) == 0 {
		t.Fatalf("no API found: %v", err)
	}
	service, call := regexp.MustCompile(`(?m)^service (\w+) \{`), regexp.MustCompile(`(?m)^  rpc (\w+)\(`)
	calls := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := service.FindSubmatch(text)
		if name == nil {
			t.Fatalf("%s has no service", file)
		}
		for _, found := range call.FindAllSubmatch(text, -1) {
			calls++
			if _, ok := rules["/stoker.v1."+string(name[1])+"/"+string(found[1])]; !ok {
				t.Errorf("%s.%s has no rule", name[1], found[1])
			}
		}
	}
	if calls < 35 {
		t.Errorf("found only %d calls", calls)
	}
}

func TestRulesAreACopy(t *testing.T) {
	r := Rules()
	r[createSession] = Rule{Operators: RoleViewer}
	if rules[createSession].Operators != "" {
		t.Error("a caller changed the rules")
	}
}

func TestUnknownRoleRanksBelowAll(t *testing.T) {
	if Role("root").rank() >= RoleViewer.rank() || RoleViewer.rank() >= RoleOperator.rank() || RoleOperator.rank() >= RoleAdmin.rank() {
		t.Error("roles are out of order")
	}
}
