// Package entitlement says what a holder may have under a grant at this
// moment.
//
// It owns the answer to one question, put together from the directory (tenant,
// user, agent, grant, location, revocations), the check of the principal, and
// the session policy that the grant becomes. It answers from memory, issues
// nothing and stores nothing.
package entitlement
