// Package authn decides who is calling and whether they may: a certificate and
// a login make a Principal.
//
// It owns the table of calls and callers, the reading of certificates'
// identities and of authorization metadata, passwords and their hashes, the
// delay after wrong ones, and access tokens with the keys that sign them. Every
// refusal is a *reason.Error; every login, refused or not, is in the audit
// trail before its answer leaves.
//
// It never decides what a principal's credentials reach (that is the grants'),
// stores nothing but password hashes that it upgrades, its signing keys and
// the ends of sessions, and knows nothing of gRPC: a call is a method name, a
// peer and the values of its authorization metadata.
package authn
