package clienttest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/client/clienttest"
)

// testBackup is a vendor's test: what its program does while credentials change,
// the broker is away, and somebody revokes the grant.
func testBackup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory(), clienttest.WithGrants("photos"))
		source, err := client.New(t.Context(), broker.Config())
		if err != nil {
			t.Fatal(err)
		}
		defer source.Close()
		provider := source.CredentialsProvider("photos")
		first, err := provider.Retrieve(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		pushed := broker.Push("photos", time.Hour)
		synctest.Wait()
		second, err := provider.Retrieve(t.Context())
		if err != nil || second.AccessKeyID != pushed.AccessKeyID || second.AccessKeyID == first.AccessKeyID {
			t.Errorf("after a renewal: %v", err)
		}
		broker.Stop()
		<-time.After(30 * time.Minute)
		if _, err := provider.Retrieve(t.Context()); err != nil {
			t.Errorf("while the broker is away: %v", err)
		}
		broker.Start()
		<-time.After(2 * time.Minute)
		broker.Revoke("photos", client.ReasonGrantDisabled)
		synctest.Wait()
		if _, err := provider.Retrieve(context.Background()); !errors.Is(err, client.ErrRevoked) {
			t.Errorf("after a revocation: %v", err)
		}
	})
}

func ExampleNew() {
	var t *testing.T // a test's own
	_ = func() { testBackup(t) }
}

func TestExample(t *testing.T) { testBackup(t) }
