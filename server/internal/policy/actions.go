package policy

import (
	"errors"
	"slices"
	"strings"
)

// target is what an action is asked of, which decides how it is confined.
type target int

const (
	// onPrefix actions are asked of the bucket and carry s3:prefix.
	onPrefix target = iota
	// onBucket actions read a setting of the bucket that names no key.
	onBucket
	// onObject actions are asked of one key.
	onObject
)

// keyUse is what SSE-KMS needs of the key for an action.
type keyUse int

const (
	noKey keyUse = iota
	// readKey decrypts.
	readKey
	// writeKey makes a data key, and decrypts it again for multipart uploads.
	writeKey
)

// s3Action is an S3 action that a policy may hold.
type s3Action struct {
	name   string
	target target
	key    keyUse
}

// catalog holds every action that a policy may name, in the order in which
// policies name them. An action belongs here only if it can be confined to a
// prefix, or reads a setting that tells nothing of other tenants, and if it
// cannot hand the tenant's objects to someone else.
var catalog = []s3Action{
	{"s3:ListBucket", onPrefix, noKey},
	{"s3:ListBucketVersions", onPrefix, noKey},

	{"s3:GetBucketLocation", onBucket, noKey},
	{"s3:GetBucketObjectLockConfiguration", onBucket, noKey},
	{"s3:GetBucketVersioning", onBucket, noKey},

	{"s3:GetObject", onObject, readKey},
	{"s3:GetObjectAttributes", onObject, readKey},
	{"s3:GetObjectLegalHold", onObject, noKey},
	{"s3:GetObjectRetention", onObject, noKey},
	{"s3:GetObjectTagging", onObject, noKey},
	{"s3:GetObjectVersion", onObject, readKey},
	{"s3:GetObjectVersionAttributes", onObject, readKey},
	{"s3:GetObjectVersionTagging", onObject, noKey},
	{"s3:PutObject", onObject, writeKey},
	{"s3:PutObjectLegalHold", onObject, noKey},
	{"s3:PutObjectRetention", onObject, noKey},
	{"s3:PutObjectTagging", onObject, noKey},
	{"s3:PutObjectVersionTagging", onObject, noKey},
	{"s3:AbortMultipartUpload", onObject, noKey},
	{"s3:ListMultipartUploadParts", onObject, noKey},
	{"s3:RestoreObject", onObject, noKey},
	{"s3:DeleteObject", onObject, noKey},
	{"s3:DeleteObjectTagging", onObject, noKey},
	{"s3:DeleteObjectVersion", onObject, noKey},
	{"s3:DeleteObjectVersionTagging", onObject, noKey},
}

// uploadsOfAll is why nobody may list the uploads in progress: AWS evaluates
// s3:prefix for s3:ListBucket and s3:ListBucketVersions alone, so the action is
// either refused for every request or opens the whole bucket.
const uploadsOfAll = "takes no s3:prefix condition and would show the uploads of other tenants; leave it out, and let a lifecycle rule of the bucket end unfinished uploads"

// closed are actions that people ask for and do not get, with the reason.
var closed = map[string]string{
	"s3:ListBucketMultipartUploads": uploadsOfAll,
	"s3:ListMultipartUploads":       uploadsOfAll,
	"s3:ListAllMyBuckets":           "cannot be confined to a prefix and would show every bucket; leave it out",
	"s3:PutObjectAcl":               "could open objects to anybody; leave it out",
	"s3:PutObjectVersionAcl":        "could open objects to anybody; leave it out",
	"s3:BypassGovernanceRetention":  "would lift the Object Lock that protects backups from a stolen credential; leave it out",
}

// calls are S3 calls which are often taken for actions, and the action that
// each needs.
var calls = map[string]string{
	"s3:CompleteMultipartUpload": "s3:PutObject",
	"s3:CopyObject":              "s3:GetObject and s3:PutObject",
	"s3:CreateMultipartUpload":   "s3:PutObject",
	"s3:DeleteObjects":           "s3:DeleteObject",
	"s3:HeadBucket":              "s3:ListBucket",
	"s3:HeadObject":              "s3:GetObject",
	"s3:ListObjectVersions":      "s3:ListBucketVersions",
	"s3:ListObjects":             "s3:ListBucket",
	"s3:ListObjectsV2":           "s3:ListBucket",
	"s3:ListParts":               "s3:ListMultipartUploadParts",
	"s3:UploadPart":              "s3:PutObject",
	"s3:UploadPartCopy":          "s3:GetObject and s3:PutObject",
}

// ValidateActions reports every reason why a grant cannot list these actions,
// each a *ScopeError, or nil. A list has at least one action, each once,
// spelled as AWS spells it, without wildcards, and out of those that
// docs/policies.md lists.
func ValidateActions(actions []string) error {
	const field = "actions"
	if len(actions) == 0 {
		return refuse(field, "", "is empty; name at least one action such as s3:GetObject")
	}
	if len(actions) > len(catalog) {
		// Checked first, so that a huge list makes one error and not one each.
		return refuse(field, actions[0], "and %d more are too many; there are %d to choose from", len(actions)-1, len(catalog))
	}
	var problems []error
	for i, name := range actions {
		if problem := actionProblem(name); problem != "" {
			problems = append(problems, refuse(field, name, "%s", problem))
		} else if slices.Contains(actions[:i], name) {
			problems = append(problems, refuse(field, name, "is listed twice; list it once"))
		}
	}
	return errors.Join(problems...)
}

// actionProblem says why a grant may not list the action, or "".
func actionProblem(name string) string {
	if _, ok := lookup(name); ok {
		return ""
	}
	if strings.ContainsAny(name, "*?") {
		return "has a wildcard, which would grow with each action that AWS adds; list the actions one by one"
	}
	for _, a := range catalog {
		if strings.EqualFold(a.name, name) {
			return "is misspelled; write " + a.name
		}
	}
	for known, why := range closed {
		if strings.EqualFold(known, name) {
			return why
		}
	}
	for call, need := range calls {
		if strings.EqualFold(call, name) {
			return "is a call, not an action; list " + need
		}
	}
	return "is not an action that a grant may list; see docs/policies.md for those that are"
}

// lookup finds an action by its exact name.
func lookup(name string) (s3Action, bool) {
	i := slices.IndexFunc(catalog, func(a s3Action) bool { return a.name == name })
	if i < 0 {
		return s3Action{}, false
	}
	return catalog[i], true
}

// Actions are the names of all actions that a grant with AccessActions may
// list, in the order in which policies name them.
func Actions() []string {
	names := make([]string, len(catalog))
	for i, a := range catalog {
		names[i] = a.name
	}
	return names
}
