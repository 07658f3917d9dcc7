// Package devsts is a local STS for development and tests. It speaks the real
// Query protocol over HTTP, so that the same client code runs against it and
// against AWS.
//
// It owns the protocol (form parameters, XML answers and errors, Signature
// Version 4, header-signed and presigned), the operations GetFederationToken,
// AssumeRole and GetCallerIdentity with AWS's limits and error codes, session
// tokens that verify without a store, and faults on demand. It remembers the
// last credentials that it issued, without their secrets, and counts calls.
//
// It guards nothing of value: there is no authorization beyond what STS itself
// forbids, and no S3 behind its credentials. It never leaves the loopback
// interface by itself, and it never calls AWS. Nothing of the broker but
// development mode and tests imports it.
package devsts
