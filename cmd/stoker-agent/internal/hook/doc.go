// Package hook runs a command when a credential was renewed or revoked, so that a
// tool which keeps old keys can be told to read new ones.
//
// It owns the processes and their environment: the grant, the event, the expiry
// and the reason are in it, and never a secret. At most one runs for each grant,
// and none for longer than its time.
package hook
