// Package adminapi serves the operators' services: tenants, users, agents,
// locations, grants, the fleet, and the audit trail. A file a resource.
//
// It owns what an operator may write: names, limits, update masks, etags, page
// tokens, and the checks that keep a stored grant one that a session policy can
// be made of and that shares no key with another tenant's. Its handlers
// translate: message, checks, storage, message. They answer domain errors,
// which the caller's interceptor turns into statuses. Who may call what is
// decided before a handler runs, by authn's rules.
//
// Every change goes one way, in change.go: it is recorded in the audit trail,
// then stored, then waited for until this broker's directory has it, and only
// then answered. The package never issues credentials, never speaks to an STS,
// and never shows a password, a hash or a key that it has stored.
package adminapi
