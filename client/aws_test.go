package client_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/client/clienttest"
)

func TestProvider(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory())
		source := start(t, broker.Config())
		provider := source.CredentialsProvider("photos")
		keys, err := provider.Retrieve(t.Context()) // waits for the first
		if err != nil {
			t.Fatal(err)
		}
		c := mustCredential(t, source, "photos")
		want := aws.Credentials{
			AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken,
			Source: "Stoker", CanExpire: true, Expires: time.Now().Add(time.Minute),
		}
		if keys != want {
			t.Errorf("got %v", keys)
		}
		<-time.After(time.Hour - 10*time.Second)
		if keys, err := provider.Retrieve(t.Context()); err != nil || !keys.Expires.Equal(c.Expires) {
			t.Errorf("near the end: %v, %v", keys.Expires, err)
		}
		<-time.After(10 * time.Second)
		if keys, err := provider.Retrieve(t.Context()); !errors.Is(err, client.ErrExpired) || keys.HasKeys() {
			t.Errorf("after the end: %v", err)
		}
	})
}

// TestProviderInCache: behind the SDK's cache a renewal is in use, and a
// revocation is noticed, within a minute.
func TestProviderInCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory())
		source := ready(t, broker)
		cache := aws.NewCredentialsCache(source.CredentialsProvider(""))
		if _, err := cache.Retrieve(t.Context()); err != nil {
			t.Fatal(err)
		}
		pushed := broker.Push("photos", time.Hour)
		<-time.After(time.Minute)
		if keys, err := cache.Retrieve(t.Context()); err != nil || keys.AccessKeyID != pushed.AccessKeyID {
			t.Errorf("after a renewal: %v", err)
		}
		broker.Revoke("photos", client.ReasonGrantDisabled)
		<-time.After(time.Minute)
		if keys, err := cache.Retrieve(t.Context()); client.ReasonOf(err) != client.ReasonGrantDisabled || keys.HasKeys() {
			t.Errorf("after a revocation: %v", err)
		}
	})
}

func TestProviderWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory())
		broker.Stop()
		source := start(t, broker.Config())
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := source.CredentialsProvider("").Retrieve(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without a broker: %v", err)
		}
		broker.Start()
		broker.RefuseLogin(&client.Error{Reason: client.ReasonLoginRejected, Message: "no"})
		if _, err := source.CredentialsProvider("").Retrieve(t.Context()); client.ReasonOf(err) != client.ReasonLoginRejected {
			t.Errorf("refused: %v", err)
		}
	})
}
