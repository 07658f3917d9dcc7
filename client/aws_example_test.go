package client_test

import (
	"context"
	"log"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/stokerd/stoker/client"
)

// The SDK signs each request with the newest credential. The grant's target says
// where to.
func ExampleSource_CredentialsProvider() {
	var source *client.Source // from client.New, after Wait

	held, err := source.Credential("photos")
	if err != nil {
		log.Fatal(err)
	}
	service := s3.New(s3.Options{
		Credentials: source.CredentialsProvider("photos"),
		Region:      held.Target.Region,
	})
	_, err = service.ListObjectsV2(context.Background(), &s3.ListObjectsV2Input{
		Bucket: aws.String(held.Target.Bucket), Prefix: aws.String(held.Target.Prefix),
	})
	if err != nil {
		log.Fatal(err)
	}
}
