// Package site makes what a broker under measurement needs: a directory with
// its keys, a local STS, a database with tenants and agents, and for each agent
// a certificate and an access token.
//
// It writes into storage directly, before the broker is started, because ten
// thousand enrollments and password hashes would take longer than everything
// that is to be measured. What it writes is what a broker would have written:
// certificates are signed by the built-in authority, sessions are begun by
// authn and recorded in the audit trail. It starts no broker.
package site
