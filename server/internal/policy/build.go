package policy

import (
	"slices"
	"unicode/utf8"
)

// MaxDocumentLength is the longest inline session policy that STS takes, in
// characters. STS has a second, packed limit that depends on the tags and that
// only STS can tell.
const MaxDocumentLength = 2048

// granted are the actions of each named access. None deletes versions: where
// the bucket keeps versions, a delete then leaves a marker that the provider
// can undo, also after a stolen maintain credential. None lists the uploads in
// progress, see closed.
var granted = map[Access][]string{
	AccessBackup:   {"s3:ListBucket", "s3:GetBucketLocation", "s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"},
	AccessRestore:  {"s3:ListBucket", "s3:GetBucketLocation", "s3:GetObject"},
	AccessMaintain: {"s3:ListBucket", "s3:GetBucketLocation", "s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts", "s3:DeleteObject"},
}

// Build makes the smallest session policy for s. Equal scopes give the same
// document, byte for byte. It fails with one or more *ScopeError, joined, or
// with a *LengthError, which takes a long prefix full of double quotes: JSON
// writes each as two characters.
func Build(s Scope) (Document, error) {
	if s.Partition == "" {
		s.Partition = "aws"
	}
	if err := s.validate(); err != nil {
		return Document{}, err
	}
	d := Document{
		bucketARN:   "arn:" + s.Partition + ":s3:::" + s.Bucket,
		keyARN:      s.KMSKeyARN,
		viaServices: viaServices(s),
	}
	d.statements = d.statementsFor(s)
	text, err := encode(d.statements)
	if err != nil {
		return Document{}, err
	}
	if n := utf8.RuneCountInString(text); n > MaxDocumentLength {
		return Document{}, &LengthError{Length: n, Max: MaxDocumentLength}
	}
	d.text = text
	return d, nil
}

// statementsFor lists the statements of a valid scope in their fixed order.
func (d Document) statementsFor(s Scope) []Statement {
	actions := granted[s.Access]
	if s.Access == AccessActions {
		actions = s.Actions
	}
	objects := d.bucketARN + "/" + s.Prefix
	var out []Statement
	if names := choose(actions, onPrefix); len(names) > 0 {
		// "*" matches nothing too, so this is also the listing of the prefix
		// itself. A request without a prefix has no s3:prefix and is refused.
		out = append(out, Statement{
			Purpose:   "list the keys that begin with " + quote(s.Prefix),
			Actions:   names,
			Resources: []string{d.bucketARN},
			Condition: Condition{Operator: stringLike, Key: "s3:prefix", Values: []string{s.Prefix + "*"}},
		})
	}
	if names := choose(actions, onBucket); len(names) > 0 {
		out = append(out, Statement{
			Purpose:   "read settings of the bucket, which name no key",
			Actions:   names,
			Resources: []string{d.bucketARN},
		})
	}
	if names := choose(actions, onObject); len(names) > 0 {
		out = append(out, Statement{
			Purpose:   "use the objects whose keys begin with " + quote(s.Prefix),
			Actions:   names,
			Resources: []string{objects + "*"},
		})
	}
	if s.Access == AccessBackup {
		out = append(out, Statement{
			Purpose:   "delete lock files: what is in a directory locks/ under " + quote(s.Prefix),
			Actions:   []string{"s3:DeleteObject"},
			Resources: lockFiles(objects),
		})
	}
	if uses := keyActions(actions); len(uses) > 0 && d.keyARN != "" {
		out = append(out, Statement{
			Purpose:   "use the bucket's KMS key, through S3 only",
			Actions:   uses,
			Resources: []string{d.keyARN},
			Condition: Condition{Operator: stringEquals, Key: "kms:ViaService", Values: d.viaServices},
		})
	}
	return out
}

// lockFiles are the keys that backup programs must be able to delete although
// backup access is append-only: restic keeps its locks in locks/ of the
// repository, which may be the prefix itself or lie anywhere under it. The
// second pattern lets a thief delete what he finds in a directory named
// exactly "locks"; restic keeps nothing else there, and he cannot move other
// objects into one, since a copy leaves its source in place. One pattern
// "*locks/*" would also take "padlocks/".
func lockFiles(objects string) []string {
	return []string{objects + "locks/*", objects + "*/locks/*"}
}

// choose gives those of the named actions that are asked of t, in the
// catalog's order.
func choose(names []string, t target) []string {
	var out []string
	for _, a := range catalog {
		if a.target == t && slices.Contains(names, a.name) {
			out = append(out, a.name)
		}
	}
	return out
}

// keyActions gives what the named actions need of a KMS key. Writing needs
// kms:Decrypt too, since S3 decrypts the data key again for each part of a
// multipart upload.
func keyActions(names []string) []string {
	most := noKey
	for _, a := range catalog {
		if slices.Contains(names, a.name) {
			most = max(most, a.key)
		}
	}
	switch most {
	case writeKey:
		return []string{"kms:Decrypt", "kms:GenerateDataKey"}
	case readKey:
		return []string{"kms:Decrypt"}
	default:
		return nil
	}
}

// viaServices are the names under which KMS sees S3 of the key's region. The
// condition keeps the credential from calling KMS itself. An encryption
// context could not separate tenants: with S3 Bucket Keys it is the bucket's
// ARN. It need not, since S3 uses the key only for requests that the other
// statements allow. In China both spellings are in use; only AWS sets either.
func viaServices(s Scope) []string {
	parts := keyARN.FindStringSubmatch(s.KMSKeyARN)
	if parts == nil {
		return nil
	}
	name := "s3." + parts[2] + ".amazonaws.com"
	if s.Partition == "aws-cn" {
		return []string{name, name + ".cn"}
	}
	return []string{name}
}
