package minio_test

import (
	"context"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/stokerd/stoker/internal/partner/minio"
)

// The partner must really enforce what the tests rest on: a session policy.
func TestSessionPoliciesAreEnforced(t *testing.T) {
	server := minio.Start(t, "shared")
	config := aws.Config{
		Region: server.Region, BaseEndpoint: aws.String(server.Endpoint),
		Credentials: credentials.NewStaticCredentialsProvider(server.AccessKey, server.SecretKey, ""),
	}
	out, err := sts.NewFromConfig(config).AssumeRole(context.Background(), &sts.AssumeRoleInput{
		RoleArn: aws.String("arn:aws:iam::000000000000:role/any"), RoleSessionName: aws.String("any"), DurationSeconds: aws.Int32(900),
		Policy: aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:PutObject"],"Resource":["arn:aws:s3:::shared/a/*"]}]}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	config.Credentials = credentials.NewStaticCredentialsProvider(*out.Credentials.AccessKeyId, *out.Credentials.SecretAccessKey, *out.Credentials.SessionToken)
	narrowed := s3.NewFromConfig(config, func(o *s3.Options) { o.UsePathStyle = true })
	put := func(key string) error {
		_, err := narrowed.PutObject(context.Background(), &s3.PutObjectInput{Bucket: aws.String("shared"), Key: &key, Body: strings.NewReader("x")})
		return err
	}
	if err := put("a/key"); err != nil {
		t.Errorf("inside the policy: %v", err)
	}
	if err := put("ab/key"); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("outside the policy: %v", err)
	}
}
