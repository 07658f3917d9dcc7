// Package enrollment gives agents their certificates: the first one for a join
// token, the next ones for the one before.
//
// It owns who may have a certificate signed and how often. Signing itself is
// pki's, the text of tokens is jointoken's; making invitations belongs to the
// operators' API.
package enrollment
