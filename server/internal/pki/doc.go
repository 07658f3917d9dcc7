// Package pki is the broker's built-in certificate authority and what goes
// with certificates: the SPIFFE IDs that they carry, the certificates, bundles
// and revocation lists that the listeners use, and keys sealed at rest.
//
// It owns the form of an identity (one place makes them and reads them), the
// profile of every certificate that the broker signs, the TLS configuration of
// the broker's listeners, and the format of sealed keys. It never decides who
// may have a certificate or make a call, and it keeps nothing: certificates
// are recorded, and sealed keys stored, by its callers.
package pki
