//go:build unix

package tools_test

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

// vault is a bucket with old versions, seen by its owner and by a thief of an
// agent.
type vault struct {
	t            *testing.T
	bucket       string
	owner, thief *s3.Client
}

// owner is an S3 client with the provider's own keys, past the gate.
func (y *yard) owner() *s3.Client {
	return s3.New(s3.Options{
		Region: y.minio.Region, BaseEndpoint: aws.String(y.minio.Endpoint), UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(y.minio.AccessKey, y.minio.SecretKey, ""),
	})
}

// newVault gives a thief an access to the prefix "acme/" of a bucket.
func (y *yard) newVault(t *testing.T, bucket string, access stokerv1.Access) *vault {
	t.Helper()
	name := bucket + "-" + accessName(access)
	y.Grant(&stokerv1.Grant{Tenant: "acme", Login: "backup", Name: name, Location: bucket, Prefix: "acme/", Access: access}, y.lifetime)
	return &vault{t: t, bucket: bucket, owner: y.owner(), thief: y.client(y.one(t, name))}
}

// store puts an object as the agent does, and gives its version.
func (v *vault) store(ctx context.Context, key, text string) string {
	v.t.Helper()
	out, err := v.thief.PutObject(ctx, &s3.PutObjectInput{Bucket: &v.bucket, Key: &key, Body: strings.NewReader(text)})
	must(v.t, err)
	return aws.ToString(out.VersionId)
}

// read reads a version of an object.
func (v *vault) read(ctx context.Context, who *s3.Client, key, version string) (string, error) {
	in := &s3.GetObjectInput{Bucket: &v.bucket, Key: &key}
	if version != "" {
		in.VersionId = &version
	}
	out, err := who.GetObject(ctx, in)
	if err != nil {
		return "", err
	}
	defer out.Body.Close()
	text, err := io.ReadAll(out.Body)
	return string(text), err
}

func (v *vault) remove(ctx context.Context, key, version string) error {
	in := &s3.DeleteObjectInput{Bucket: &v.bucket, Key: &key}
	if version != "" {
		in.VersionId = &version
	}
	_, err := v.thief.DeleteObject(ctx, in)
	return err
}

// stillThere fails the test where the owner cannot read the version.
func (v *vault) stillThere(ctx context.Context, key, version, want string) {
	v.t.Helper()
	if got, err := v.read(ctx, v.owner, key, version); err != nil || got != want {
		v.t.Errorf("%s, version %s: %q, %v", key, version, got, err)
	}
}

// refused fails the test for each attempt that was not refused for want of
// rights.
func (v *vault) refused(attempts map[string]error) {
	v.t.Helper()
	for what, err := range attempts {
		if !denied(err) {
			v.t.Errorf("%s: %v", what, err)
		}
	}
}

// Whoever steals an agent with access "backup" cannot delete or overwrite what
// is there in a bucket with versions, and this is all that he can do.
func TestThiefWithBackupAccess(t *testing.T) {
	t.Parallel()
	y := newYard(t, 15*time.Minute)
	y.minio.Admin(t, "mb", "root/versioned")
	y.minio.Admin(t, "version", "enable", "root/versioned")
	y.minio.Admin(t, "mb", "--with-lock", "root/locked")
	y.minio.Admin(t, "retention", "set", "--default", "COMPLIANCE", "1d", "root/locked")
	for _, bucket := range []string{"versioned", "locked"} {
		y.place(bucket, bucket)
	}
	t.Run("versioned", func(t *testing.T) { y.newVault(t, "versioned", accessBackup).rob(t.Context()) })
	t.Run("locked", func(t *testing.T) {
		v := y.newVault(t, "locked", accessBackup)
		v.rob(t.Context())
		v.unlock(t.Context())
	})
	t.Run("maintain", func(t *testing.T) {
		ctx := t.Context()
		v := y.newVault(t, "versioned", accessMaintain)
		old := v.store(ctx, "acme/later", "what must not be lost")
		must(t, v.remove(ctx, "acme/later", ""))
		v.stillThere(ctx, "acme/later", old, "what must not be lost")
		v.refused(map[string]error{"delete a version": v.remove(ctx, "acme/later", old)})
	})
}

// rob tries everything against a bucket with versions.
func (v *vault) rob(ctx context.Context) {
	v.t.Helper()
	const precious = "what must not be lost"
	old := v.store(ctx, "acme/data", precious)

	// He can read, add, and hide under a new version.
	if got, err := v.read(ctx, v.thief, "acme/data", ""); err != nil || got != precious {
		v.t.Errorf("reading what is there: %q, %v", got, err)
	}
	hiding := v.store(ctx, "acme/data", "garbage")
	if got, err := v.read(ctx, v.thief, "acme/data", ""); err != nil || got != "garbage" {
		v.t.Errorf("the new version is not the present one: %q, %v", got, err)
	}
	v.stillThere(ctx, "acme/data", old, precious)

	// MinIO lets whoever may read and list do so with versions too. AWS does not,
	// by the same policy.
	_, suspend := v.thief.PutBucketVersioning(ctx, &s3.PutBucketVersioningInput{
		Bucket: &v.bucket, VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusSuspended},
	})
	_, expire := v.thief.PutBucketLifecycleConfiguration(ctx, &s3.PutBucketLifecycleConfigurationInput{
		Bucket: &v.bucket, LifecycleConfiguration: &types.BucketLifecycleConfiguration{Rules: []types.LifecycleRule{{
			ID: aws.String("all"), Status: types.ExpirationStatusEnabled, Filter: &types.LifecycleRuleFilter{Prefix: aws.String("")},
			NoncurrentVersionExpiration: &types.NoncurrentVersionExpiration{NoncurrentDays: aws.Int32(1)},
		}}},
	})
	several, manyErr := v.thief.DeleteObjects(ctx, &s3.DeleteObjectsInput{
		Bucket: &v.bucket, Delete: &types.Delete{Objects: []types.ObjectIdentifier{{Key: aws.String("acme/data")}}},
	})
	if manyErr == nil && (len(several.Deleted) > 0 || len(several.Errors) != 1 || aws.ToString(several.Errors[0].Code) != "AccessDenied") {
		v.t.Errorf("deleting several: %+v", several)
	}
	v.refused(map[string]error{
		"delete":                 v.remove(ctx, "acme/data", ""),
		"delete the old version": v.remove(ctx, "acme/data", old),
		"delete the new version": v.remove(ctx, "acme/data", hiding),
		"suspend versioning":     suspend,
		"expire old versions":    expire,
	})
	v.stillThere(ctx, "acme/data", old, precious)

	// Under locks/ he can hide too, and no more.
	lock := v.store(ctx, "acme/repo/locks/lock", "a lock")
	must(v.t, v.remove(ctx, "acme/repo/locks/lock", ""))
	v.refused(map[string]error{"delete a lock's version": v.remove(ctx, "acme/repo/locks/lock", lock)})
	v.stillThere(ctx, "acme/repo/locks/lock", lock, "a lock")
}

// unlock tries to undo Object Lock.
func (v *vault) unlock(ctx context.Context) {
	v.t.Helper()
	old := v.store(ctx, "acme/held", "held")
	soon := time.Now().Add(time.Second)
	// MinIO looks at the lock before it looks at the rights.
	_, retention := v.thief.PutObjectRetention(ctx, &s3.PutObjectRetentionInput{
		Bucket: &v.bucket, Key: aws.String("acme/held"), VersionId: &old, BypassGovernanceRetention: aws.Bool(true),
		Retention: &types.ObjectLockRetention{Mode: types.ObjectLockRetentionModeGovernance, RetainUntilDate: &soon},
	})
	_, hold := v.thief.PutObjectLegalHold(ctx, &s3.PutObjectLegalHoldInput{
		Bucket: &v.bucket, Key: aws.String("acme/held"), VersionId: &old,
		LegalHold: &types.ObjectLockLegalHold{Status: types.ObjectLockLegalHoldStatusOff},
	})
	_, configuration := v.thief.PutObjectLockConfiguration(ctx, &s3.PutObjectLockConfigurationInput{
		Bucket: &v.bucket, ObjectLockConfiguration: &types.ObjectLockConfiguration{ObjectLockEnabled: types.ObjectLockEnabledEnabled},
	})
	if retention == nil {
		v.t.Error("the thief shortened the retention")
	}
	v.refused(map[string]error{
		"lift the legal hold": hold, "change the bucket's lock": configuration,
		"delete the version": v.remove(ctx, "acme/held", old),
	})
	// Object Lock holds even against the provider's own keys.
	_, err := v.owner.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &v.bucket, Key: aws.String("acme/held"), VersionId: &old})
	if err == nil {
		v.t.Error("the owner deleted a locked version")
	}
	v.stillThere(ctx, "acme/held", old, "held")
}
