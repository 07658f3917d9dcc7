// Package policy turns a grant into the session policy that goes to STS.
//
// It owns the rules of what a grant may open: which prefixes, buckets, keys
// and S3 actions can be written into a policy so that text which a tenant
// controls never widens it, the smallest document for each access, and an
// evaluator of those documents and no others. It knows nothing of AWS clients,
// storage or gRPC, and imports the standard library alone.
//
// Two rules carry the rest. What cannot be written safely is refused, never
// escaped: an escape that one policy engine honors is a wildcard to another,
// and a person who reads the policy must see what it opens. And there is no
// empty policy: Build is the only way to a usable Document, because AssumeRole
// without a policy gives the whole role.
//
// docs/policies.md shows the documents; a test keeps it true.
package policy
