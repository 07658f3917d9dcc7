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

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/stokerd/stoker/client"
)

// Supply keeps the worker supplied under one grant; *client.Source does.
type Supply interface {
	Wait(ctx context.Context, grants ...string) error
	Credential(grant string) (client.Credential, error)
	CredentialsProvider(grant string) aws.CredentialsProvider
}

// Job is one restore.
type Job struct {
	// Out is the directory to write to.
	Out string
}

// Restore copies everything under the grant's prefix, and counts the objects.
func (j Job) Restore(ctx context.Context, supply Supply) (n int, err error) {
	if j.Out == "" {
		return 0, errors.New("no directory to write to: give --out")
	}
	if err := supply.Wait(ctx); err != nil {
		return 0, fmt.Errorf("the broker gives no credentials: %w", err)
	}
	// The first credential says where the grant leads.
	first, err := supply.Credential("")
	if err != nil {
		return 0, err
	}
	target := first.Target
	if err := os.MkdirAll(j.Out, 0o700); err != nil {
		return 0, err
	}
	// A key is the tenant's choice: within a root, "../" leads nowhere.
	root, err := os.OpenRoot(j.Out)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	// The provider always has the newest credential: a restore of any length
	// stays supplied.
	bucket := s3.New(s3.Options{Region: target.Region, Credentials: supply.CredentialsProvider("")}, func(o *s3.Options) {
		if target.Endpoint != "" {
			o.BaseEndpoint, o.UsePathStyle = aws.String(target.Endpoint), true
		}
	})
	pages := s3.NewListObjectsV2Paginator(bucket, &s3.ListObjectsV2Input{
		Bucket: aws.String(target.Bucket), Prefix: aws.String(target.Prefix),
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return n, fmt.Errorf("list %s: %w", target, err)
		}
		for _, object := range page.Contents {
			key := aws.ToString(object.Key)
			if strings.HasSuffix(key, "/") {
				continue // the mark of a directory
			}
			if err := fetch(ctx, bucket, root, target, key); err != nil {
				return n, fmt.Errorf("restore %q: %w", key, err)
			}
			n++
		}
	}
	return n, nil
}

// fetch writes one object under the root, below its name after the prefix.
func fetch(ctx context.Context, bucket *s3.Client, root *os.Root, target client.Target, key string) (err error) {
	name := path.Clean(strings.TrimPrefix(key, target.Prefix))
	if !fs.ValidPath(name) {
		return errors.New("the key is no path below the directory")
	}
	object, err := bucket.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String(target.Bucket), Key: aws.String(key)})
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
