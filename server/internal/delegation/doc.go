// Package delegation gives the provider's internal services credentials for
// tenants' grants.
//
// It owns that each one has a purpose on the audit trail before it leaves.
// Which service may act for which tenant is authn's to say, what the grant
// gives entitlement's, and issuing is the lease manager's: a service's
// credential comes through the same queue as an agent's.
package delegation
