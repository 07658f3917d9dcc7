package e2e_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

func (s *site) client(c *stokerv1.Credential) *s3.Client {
	return s3.New(s3.Options{
		Region: c.GetTarget().GetRegion(), BaseEndpoint: aws.String(c.GetTarget().GetEndpoint()), UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(c.GetAccessKeyId(), c.GetSecretAccessKey(), c.GetSessionToken()),
	})
}

func put(ctx context.Context, c *s3.Client, key string) error {
	_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String(bucket), Key: &key, Body: strings.NewReader("x")})
	return err
}

func denied(err error) bool {
	var api smithy.APIError
	return errors.As(err, &api) && (api.ErrorCode() == "AccessDenied" || api.ErrorCode() == "Forbidden")
}

// A real S3 that really enforces session policies keeps two tenants of one
// bucket apart.
func TestTenantsOfOneBucketAreKeptApart(t *testing.T) {
	s := newSite(t)
	ctx := t.Context()
	alpha, beta := s.client(s.one(t, "alpha")), s.client(s.one(t, "beta"))
	if err := put(ctx, beta, "beta/secret"); err != nil {
		t.Fatal(err)
	}
	if err := put(ctx, alpha, "alpha/data"); err != nil {
		t.Fatal(err)
	}
	list := func(prefix string) error {
		_, err := alpha.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: aws.String(bucket), Prefix: aws.String(prefix)})
		return err
	}
	if err := list("alpha/"); err != nil {
		t.Errorf("alpha cannot list its own prefix: %v", err)
	}
	_, missing := alpha.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String(bucket), Key: aws.String("alpha/none")})
	if absent := new(types.NoSuchKey); !errors.As(missing, &absent) {
		t.Errorf("a missing key of its own answers %v, not 404", missing)
	}

	refused := map[string]error{
		"list beta/":      list("beta/"),
		"list all":        list(""),
		"list alphabet":   list("alphabet"),
		"list alpha":      list("alpha"),
		"write beta/":     put(ctx, alpha, "beta/mine"),
		"write alphabet/": put(ctx, alpha, "alphabet/x"),
		"write root":      put(ctx, alpha, "x"),
	}
	read, err := alpha.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String(bucket), Key: aws.String("beta/secret")})
	refused["read beta/"] = err
	if err == nil {
		_, _ = io.Copy(io.Discard, read.Body)
		_ = read.Body.Close()
	}
	_, refused["copy from beta/"] = alpha.CopyObject(ctx, &s3.CopyObjectInput{
		Bucket: aws.String(bucket), Key: aws.String("alpha/stolen"), CopySource: aws.String(bucket + "/beta/secret"),
	})
	remove := func(key string) error {
		_, err := alpha.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: aws.String(bucket), Key: aws.String(key)})
		return err
	}
	refused["delete beta/"] = remove("beta/secret")
	refused["delete its own data with backup access"] = remove("alpha/data")
	refused["delete the bucket"] = func() error {
		_, err := alpha.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: aws.String(bucket)})
		return err
	}()
	_, refused["change the bucket's policy"] = alpha.PutBucketPolicy(ctx, &s3.PutBucketPolicyInput{Bucket: aws.String(bucket), Policy: aws.String(`{"Version":"2012-10-17","Statement":[]}`)})
	_, refused["list all buckets' uploads"] = alpha.ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: aws.String(bucket)})
	for what, err := range refused {
		if !denied(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := put(ctx, alpha, "alpha/repo/locks/lock"); err != nil {
		t.Fatal(err)
	}
	if err := remove("alpha/repo/locks/lock"); err != nil {
		t.Errorf("a lock cannot be removed: %v", err)
	}
}
