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
// It also knows IAM's calls on the inline policies of users and roles, and
// enforces what these deny, session tags and times of issue included. One call
// of S3, ListObjectsV2, tries an issued credential out: every bucket exists and
// is empty, and what the session's policy and the inline policies say of it is
// evaluated as on AWS. A policy that uses what is not evaluated here is refused
// with NotImplemented, rather than stored and ignored. Inline policies take
// effect at once, where AWS takes a while, and are forgotten at the end.
//
// It guards nothing of value: users and roles may do all that no inline policy
// denies, and no S3 keeps anything behind its credentials. It never leaves the
// loopback interface by itself, and it never calls AWS. Nothing of the broker
// but development mode and tests imports it.
package devsts
