//go:build unix

package tools_test

import (
	"context"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/stokerd/stoker/client"
)

// A program that embeds the client has its S3 client refresh without an agent
// beside it.
func TestEmbedded(t *testing.T) {
	t.Parallel()
	y := newYard(t, time.Minute)
	y.grant(t, "embedded", "backup@acme", accessBackup)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	source, err := client.New(ctx, client.Config{
		Brokers: []string{y.Addr}, TLS: y.TLS(y.Agent("acme", "product")), Login: "backup@acme",
		Password: func(context.Context) (string, error) { return y.passwords["backup@acme"], nil },
	})
	must(t, err)
	t.Cleanup(func() { _ = source.Close() })
	must(t, source.Wait(ctx, "embedded"))
	storage := s3.New(s3.Options{
		Region: y.minio.Region, BaseEndpoint: aws.String(y.gate.URL), UsePathStyle: true, Credentials: source.CredentialsProvider("embedded"),
	})
	tick := time.NewTicker(time.Second / 2)
	defer tick.Stop()
	for y.gate.tally("embedded/", time.Time{}).used < sets {
		must(t, put(ctx, storage, "embedded/key"))
		<-tick.C
	}
	if sum := y.gate.tally("embedded/", time.Time{}); sum.expired > 0 || sum.denied > 0 {
		t.Errorf("the gate saw %+v", sum)
	}
}
