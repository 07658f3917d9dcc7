// Package admintest runs the operators' services for tests, over real TLS with
// client certificates, a real authenticator, a real SQLite store, a real audit
// trail and a certificate authority of its own. Only what issues credentials
// is missing.
//
// It owns the making and ending of such a broker. Faults are injected by
// wrapping what it is made of; see Options. It is for tests alone.
package admintest
