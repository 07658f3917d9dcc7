package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"google.golang.org/grpc"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

// expiryWindow is how long before its end a credential is replaced.
const expiryWindow = 5 * time.Minute

// Job is one restore.
type Job struct {
	Tenant, Grant, Reason string
	// Out is the directory to write to.
	Out string
}

// Restore copies everything under the grant's prefix, and counts the objects.
func (j Job) Restore(ctx context.Context, conn grpc.ClientConnInterface) (n int, err error) {
	if j.Out == "" {
		return 0, errors.New("no directory to write to: give --out")
	}
	delegation := Delegation{Service: stokerv1.NewDelegationServiceClient(conn), Tenant: j.Tenant, Grant: j.Grant, Reason: j.Reason}
	// The first credential says where the grant leads.
	first, err := delegation.Issue(ctx)
	if err != nil {
		return 0, err
	}
	target := first.GetTarget()
	if err := os.MkdirAll(j.Out, 0o700); err != nil {
		return 0, err
	}
	// A key is the tenant's choice: within a root, "../" leads nowhere.
	root, err := os.OpenRoot(j.Out)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	client := s3.New(s3.Options{
		Region:      target.GetRegion(),
		Credentials: aws.NewCredentialsCache(delegation, func(o *aws.CredentialsCacheOptions) { o.ExpiryWindow = expiryWindow }),
	}, func(o *s3.Options) {
		if target.GetEndpoint() != "" {
			o.BaseEndpoint, o.UsePathStyle = aws.String(target.GetEndpoint()), true
		}
	})
	pages := s3.NewListObjectsV2Paginator(client, &s3.ListObjectsV2Input{
		Bucket: aws.String(target.GetBucket()), Prefix: aws.String(target.GetPrefix()),
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return n, fmt.Errorf("list the backups of %s: %w", j.Tenant, err)
		}
		for _, object := range page.Contents {
			key := aws.ToString(object.Key)
			if strings.HasSuffix(key, "/") {
				continue // the mark of a directory
			}
			if err := fetch(ctx, client, root, target, key); err != nil {
				return n, fmt.Errorf("restore %q: %w", key, err)
			}
			n++
		}
	}
	return n, nil
}

// fetch writes one object under the root, below its name after the prefix.
func fetch(ctx context.Context, client *s3.Client, root *os.Root, target *stokerv1.Target, key string) (err error) {
	name := path.Clean(strings.TrimPrefix(key, target.GetPrefix()))
	if !fs.ValidPath(name) {
		return errors.New("the key is no path below the directory")
	}
	object, err := client.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String(target.GetBucket()), Key: aws.String(key)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, object.Body.Close()) }()
	if err := root.MkdirAll(path.Dir(name), 0o700); err != nil {
		return err
	}
	file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, object.Body)
	return errors.Join(err, file.Close())
}
