package authn

import (
	"maps"

	"github.com/stokerd/stoker/server/internal/reason"
)

// Role is what an operator may do; each includes the ones before it.
type Role string

// The roles, lowest first.
const (
	RoleViewer   Role = "viewer"
	RoleOperator Role = "operator"
	RoleAdmin    Role = "admin"
)

// rank orders roles; an unknown role ranks below all.
func (r Role) rank() int {
	switch r {
	case RoleViewer:
		return 1
	case RoleOperator:
		return 2
	case RoleAdmin:
		return 3
	default:
		return 0
	}
}

// Login is what an agent must send to make a call.
type Login string

// What agents must send. The zero value keeps agents out.
const (
	// CertificateAlone: no login; what is sent is not looked at.
	CertificateAlone Login = "certificate"
	// AnyLogin: a password or an access token.
	AnyLogin Login = "login"
	// PasswordLogin: a password.
	PasswordLogin Login = "password"
	// TokenLogin: an access token.
	TokenLogin Login = "token"
)

// Rule says who may make one call. The zero rule lets nobody in.
type Rule struct {
	// Agents may call with this login; empty: they may not.
	Agents Login
	// Services may call.
	Services bool
	// Operators may call from this role on; empty: they may not.
	Operators Role
	// Anonymous calls are served on the enrollment listener, which asks for
	// no certificate. Authenticate never lets one in; Anonymous does.
	Anonymous bool
}

var (
	withUser      = Rule{Agents: AnyLogin}
	byServices    = Rule{Services: true}
	byViewers     = Rule{Operators: RoleViewer}
	byOperators   = Rule{Operators: RoleOperator}
	byAdmins      = Rule{Operators: RoleAdmin}
	byEverybody   = Rule{Agents: CertificateAlone, Services: true, Operators: RoleViewer}
	byNewcomers   = Rule{Anonymous: true}
	byCertificate = Rule{Agents: CertificateAlone}
)

// table is every call that is served at all. What is not in it is refused, so
// that a new call serves nobody until somebody has decided whom.
var table = map[string]map[string]Rule{
	"stoker.v1.CredentialService": {
		"StreamCredentials": withUser,
		"GetCredentials":    withUser,
		"ListGrants":        withUser,
	},
	"stoker.v1.SessionService": {
		"CreateSession": {Agents: PasswordLogin},
		"GetSession":    withUser,
		"DeleteSession": {Agents: TokenLogin},
	},
	"stoker.v1.EnrollmentService": {
		"Enroll":           byNewcomers,
		"RenewCertificate": byCertificate,
	},
	"stoker.v1.DelegationService": {
		"IssueCredentials":  byServices,
		"StreamCredentials": byServices,
		"IntrospectSession": byServices,
	},
	"stoker.v1.TenantService": {
		"CreateTenant": byAdmins,
		"GetTenant":    byViewers,
		"ListTenants":  byViewers,
		"UpdateTenant": byAdmins,
		"DeleteTenant": byAdmins,
	},
	"stoker.v1.UserService": {
		"CreateUser": byOperators,
		"GetUser":    byViewers,
		"ListUsers":  byViewers,
		"UpdateUser": byOperators,
		"DeleteUser": byAdmins,
	},
	"stoker.v1.AgentService": {
		"CreateAgent":           byOperators,
		"GetAgent":              byViewers,
		"ListAgents":            byViewers,
		"UpdateAgent":           byOperators,
		"DeleteAgent":           byAdmins,
		"InviteAgent":           byOperators,
		"IssueAgentCertificate": byOperators,
	},
	"stoker.v1.LocationService": {
		"CreateLocation": byAdmins,
		"GetLocation":    byViewers,
		"ListLocations":  byViewers,
		"UpdateLocation": byAdmins,
		"DeleteLocation": byAdmins,
	},
	"stoker.v1.GrantService": {
		"CreateGrant":  byOperators,
		"GetGrant":     byViewers,
		"ListGrants":   byViewers,
		"ExplainGrant": byViewers,
		"UpdateGrant":  byOperators,
		"DeleteGrant":  byAdmins,
	},
	"stoker.v1.FleetService": {
		"ListStreams":     byViewers,
		"WatchEvents":     byViewers,
		"GetStatus":       byViewers,
		"Diagnose":        byOperators,
		"Revoke":          byOperators,
		"ListRevocations": byViewers,
	},
	"stoker.v1.AccountService": {
		"RotateAccountKey": byAdmins,
	},
	"stoker.v1.AuditService": {
		"ListRecords": byViewers,
		"WhoIs":       byViewers,
		"Verify":      byViewers,
	},
	"grpc.health.v1.Health": {
		"Check": byEverybody,
		"List":  byEverybody,
		"Watch": byEverybody,
	},
	"grpc.reflection.v1.ServerReflection":      {"ServerReflectionInfo": byEverybody},
	"grpc.reflection.v1alpha.ServerReflection": {"ServerReflectionInfo": byEverybody},
}

// rules is the table by full method name.
var rules = func() map[string]Rule {
	all := map[string]Rule{}
	for service, methods := range table {
		for method, rule := range methods {
			all["/"+service+"/"+method] = rule
		}
	}
	return all
}()

// Rules gives a copy of the rules by full method name, such as
// /stoker.v1.SessionService/GetSession.
func Rules() map[string]Rule { return maps.Clone(rules) }

// Anonymous decides whether the enrollment listener serves the call. It is not
// for the main listener.
func Anonymous(method string) error {
	if !rules[method].Anonymous {
		return reason.New(reason.CallNotAllowed, "this call is not served here; use the main listener")
	}
	return nil
}

// admits decides from the caller's certificate alone; a login that the rule
// asks for is still to come.
func (r Rule) admits(p Principal) error {
	switch {
	case p.Kind == Agent && r.Agents != "", p.Kind == Service && r.Services:
		return nil
	case p.Kind == Operator && r.Operators != "":
		if p.Role.rank() < r.Operators.rank() {
			return reason.New(reason.RoleTooLow, "the call needs the role %s, yours is %s; ask for a higher role", r.Operators, p.Role)
		}
		return nil
	default:
		return reason.New(reason.CallNotAllowed, "%s certificates may not make this call; use the right certificate", p.Kind)
	}
}

// ServiceRule says what a service may do on tenants' behalf. The zero rule
// lets it call and get nothing.
type ServiceRule struct {
	// Tenants are names; "*" stands for every tenant.
	Tenants []string
	// Access are the accesses whose grants the service may use; "*" stands
	// for every access.
	Access []string
}
