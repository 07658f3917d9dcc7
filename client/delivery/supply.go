package delivery

import "github.com/stokerd/stoker/client"

// Supply is where credentials come from; *client.Source is one. Both methods
// answer from memory, at once, and are safe for concurrent use.
type Supply interface {
	// Credential gives the last good credential of a grant, of the only grant
	// for "". It never gives one that has expired or was revoked. The error is
	// a *client.CredentialError.
	Credential(grant string) (client.Credential, error)
	// Grants gives the names of the grants, sorted.
	Grants() []string
}
