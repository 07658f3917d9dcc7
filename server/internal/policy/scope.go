package policy

import (
	"errors"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Access names what a grant allows under its prefix.
type Access string

// The accesses. docs/policies.md says what each can and cannot do.
const (
	// AccessBackup lists, reads and writes, and deletes lock files only.
	AccessBackup Access = "backup"
	// AccessRestore lists and reads.
	AccessRestore Access = "restore"
	// AccessMaintain is AccessBackup that may delete every key of the prefix.
	AccessMaintain Access = "maintain"
	// AccessActions is exactly the listed actions.
	AccessActions Access = "actions"
)

// Scope is what a grant opens.
type Scope struct {
	// Partition is aws, aws-cn or aws-us-gov; empty means aws, which
	// S3-compatible servers understand too.
	Partition string
	// Bucket is a general purpose bucket; see ValidateBucket.
	Bucket string
	// Prefix is where the tenant's keys begin; see ValidatePrefix.
	Prefix string
	Access Access
	// Actions is set with AccessActions and with no other access; see
	// ValidateActions. Its order has no meaning.
	Actions []string
	// KMSKeyARN is the key of a bucket that uses SSE-KMS; empty grants no use
	// of any key. It is a key's ARN: an alias means nothing in a policy.
	KMSKeyARN string
	// Region is the bucket's region. It is compared with the key's, which S3
	// requires to be the same, and otherwise unused; empty skips the
	// comparison.
	Region string
}

// MaxPrefixLength is the longest prefix in bytes. S3 allows keys of 1,024; this
// leaves backup programs room for their own names, and lets every access fit
// into a session policy whatever the bucket and the KMS key, so that a change
// of a grant's access cannot make it too long.
const MaxPrefixLength = 200

// patternCharacters are live in the policy engine of AWS (the first three) or
// of S3-compatible servers that match with globs or expressions.
const patternCharacters = "*?$[]{}\\"

// ValidatePrefix reports why p cannot be the prefix of a grant, as a
// *ScopeError, or nil. A prefix ends in "/", has no leading slash, no empty,
// "." or ".." segment, no character that a policy engine may take for a
// pattern or a variable, and only visible characters up to U+00FF, which is
// all that STS takes in a policy. It is at most MaxPrefixLength bytes of UTF-8.
func ValidatePrefix(p string) error {
	const field = "prefix"
	switch {
	case p == "":
		return refuse(field, p, `is empty, which would open the whole bucket; give one such as "acme/"`)
	case len(p) > MaxPrefixLength:
		return refuse(field, p, "is %d bytes long; use at most %d", len(p), MaxPrefixLength)
	case !utf8.ValidString(p):
		return refuse(field, p, "is not UTF-8; encode it as UTF-8")
	case p[0] == '/':
		return refuse(field, p, `begins with "/", which S3 keys do not; leave it out`)
	}
	for _, r := range p {
		if problem := characterProblem(r); problem != "" {
			return refuse(field, p, "contains %s", problem)
		}
	}
	if !strings.HasSuffix(p, "/") {
		return refuse(field, p, `does not end in "/" and would open its siblings too; write %s`, quote(p+"/"))
	}
	for segment := range strings.SplitSeq(strings.TrimSuffix(p, "/"), "/") {
		if problem := segmentProblem(segment); problem != "" {
			return refuse(field, p, "has %s", problem)
		}
	}
	return nil
}

// characterProblem says why r may not be in a prefix, or "".
func characterProblem(r rune) string {
	switch {
	case strings.ContainsRune(patternCharacters, r):
		return quote(string(r)) + ", which policy engines read as a pattern or a variable; choose a prefix without it"
	case r > unicode.MaxLatin1:
		return quote(string(r)) + ", beyond U+00FF, which STS takes in no session policy; choose a prefix without it"
	case !unicode.IsPrint(r):
		return quote(string(r)) + ", a control or invisible character; choose a prefix without it"
	}
	return ""
}

// segmentProblem says why a segment may not be in a prefix, or "". Dots are
// refused because clients and file-backed servers resolve them, outer spaces
// because two prefixes that look the same must be the same.
func segmentProblem(segment string) string {
	switch {
	case segment == "":
		return `an empty segment; write one "/" between names`
	case segment == "." || segment == "..":
		return "the segment " + quote(segment) + ", which some clients resolve as a path; leave it out"
	case strings.TrimSpace(segment) != segment:
		return "the segment " + quote(segment) + ", which begins or ends with a space; trim it"
	}
	return ""
}

// Overlap says whether two valid prefixes have keys in common: one contains
// the other. Grants of different tenants in one bucket must not overlap.
func Overlap(a, b string) bool {
	return strings.HasPrefix(a, b) || strings.HasPrefix(b, a)
}

var (
	bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	ipAddress  = regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+$`)
	// foreignNames end names that look like buckets, but are access points or
	// bucket kinds whose policies name other resources.
	foreignNames = regexp.MustCompile(`(-s3alias|--ol-s3|--x-s3|--table-s3|\.mrap)$`)
)

// ValidateBucket reports why name cannot be the bucket of a grant, as a
// *ScopeError, or nil. It takes the names of general purpose buckets (3 to 63
// lower-case letters, digits, dots and hyphens), not access point aliases,
// ARNs, directory or table buckets.
func ValidateBucket(name string) error {
	const field = "bucket"
	switch {
	case !bucketName.MatchString(name) || strings.Contains(name, ".."):
		return refuse(field, name, "is not a bucket's name; use 3 to 63 lower-case letters, digits, single dots and hyphens, beginning and ending with a letter or digit")
	case ipAddress.MatchString(name):
		return refuse(field, name, "has the form of an IP address, which S3 allows no bucket; give the bucket's name")
	case foreignNames.MatchString(name):
		return refuse(field, name, "is the alias of an access point, or a directory or table bucket; give the name of a general purpose bucket")
	}
	return nil
}

// partitions are those whose ARNs and S3 service names are known.
var partitions = []string{"aws", "aws-cn", "aws-us-gov"}

func validatePartition(p string) error {
	for _, known := range partitions {
		if p == known {
			return nil
		}
	}
	return refuse("partition", p, "is not known; use one of %s", strings.Join(partitions, ", "))
}

// keyARN takes a key's ARN apart: partition and region. Nothing in it can be
// read as a pattern.
var keyARN = regexp.MustCompile(`^arn:(aws[a-z-]{0,16}):kms:([a-z0-9-]{1,32}):[0-9]{12}:key/[A-Za-z0-9-]{1,64}$`)

// validateKey checks that the key can serve the bucket: S3 uses keys of the
// bucket's own partition and region only, and a policy for any other key would
// fail at the first request instead of here.
func validateKey(s Scope) error {
	const field = "kms_key_arn"
	if s.KMSKeyARN == "" {
		return nil
	}
	parts := keyARN.FindStringSubmatch(s.KMSKeyARN)
	if parts == nil {
		return refuse(field, s.KMSKeyARN, `is not the ARN of a key; give "arn:PARTITION:kms:REGION:ACCOUNT:key/ID", not an alias or a bare id`)
	}
	if parts[1] != s.Partition {
		return refuse(field, s.KMSKeyARN, "is of partition %s, the bucket of %s; give a key of the bucket's partition", quote(parts[1]), quote(s.Partition))
	}
	if s.Region != "" && parts[2] != s.Region {
		return refuse("region", s.Region, "is not the key's, %s; S3 takes only a key of the bucket's region", quote(parts[2]))
	}
	return nil
}

// validate reports everything that is wrong with s at once.
func (s Scope) validate() error {
	return errors.Join(
		validatePartition(s.Partition),
		ValidateBucket(s.Bucket),
		ValidatePrefix(s.Prefix),
		s.validateAccess(),
		validateKey(s),
	)
}

func (s Scope) validateAccess() error {
	switch s.Access {
	case AccessActions:
		return ValidateActions(s.Actions)
	case AccessBackup, AccessRestore, AccessMaintain:
		if len(s.Actions) > 0 {
			return refuse("actions", strings.Join(s.Actions, " "), "go with access %q only; leave them out or change the access", AccessActions)
		}
		return nil
	default:
		return refuse("access", string(s.Access), "is not known; use backup, restore, maintain or actions")
	}
}
