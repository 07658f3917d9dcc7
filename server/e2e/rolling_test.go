package e2e_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/internal/partner/postgres"
	"github.com/stokerd/stoker/internal/polling"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server"
	"github.com/stokerd/stoker/server/internal/brokertest"
)

// Three replicas are restarted one after the other under agents whose
// credentials live a few seconds: none is ever without a valid one.
func TestRollingRestartLeavesNoAgentDry(t *testing.T) {
	t.Parallel() // it waits most of the time
	const (
		agents   = 30
		lifetime = 24 * time.Second
	)
	db := postgres.Start(t)
	first := brokertest.Start(t, brokertest.Options{Configure: func(c *server.Config) {
		c.Storage = server.StorageConfig{Postgres: db.Database(t)}
		c.Drain = 2 * time.Second
	}})
	first.Tenant("acme")
	password := first.User("acme", "backup")
	first.Location(&stokerv1.Location{Name: "main", Bucket: "shared-bucket"})
	first.Grant(&stokerv1.Grant{Tenant: "acme", Name: "nightly", Location: "main", Prefix: "acme/", Access: stokerv1.Access_ACCESS_BACKUP}, lifetime)
	replicas := []*brokertest.Broker{first, first.Replica(), first.Replica()}

	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var fleet []*client.Source
	for i := range agents {
		cert := first.Agent("acme", fmt.Sprintf("agent-%d", i))
		var brokers []string
		for j := range replicas {
			brokers = append(brokers, replicas[(i+j)%len(replicas)].Addr)
		}
		source, err := client.New(ctx, client.Config{
			Brokers: brokers, TLS: &tls.Config{RootCAs: first.Roots, Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13},
			Login: "backup@acme", Password: func(context.Context) (string, error) { return password, nil },
		})
		must(t, err)
		t.Cleanup(func() { _ = source.Close() })
		fleet = append(fleet, source)
	}
	for _, s := range fleet {
		must(t, s.Wait(ctx, "nightly"))
	}

	watching, stop := context.WithCancel(ctx)
	var watchers sync.WaitGroup
	watchers.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		least := lifetime
		for {
			for i, s := range fleet {
				c, err := s.Credential("nightly")
				if err != nil {
					t.Errorf("agent %d is dry: %v", i, err)
					return
				}
				least = min(least, time.Until(c.Expires))
			}
			select {
			case <-watching.Done():
				t.Logf("the emptiest credential had %v of %v left", least, lifetime)
				return
			case <-tick.C:
			}
		}
	})
	for _, r := range replicas {
		r.Restart()
		// Every agent is renewed at least once before the next one goes.
		renewed := map[int]string{}
		for i, s := range fleet {
			if c, err := s.Credential("nightly"); err == nil {
				renewed[i] = c.ID
			}
		}
		polling.Until(ctx, t, "a renewal of every agent", func() bool {
			for i, s := range fleet {
				if c, err := s.Credential("nightly"); err == nil && c.ID == renewed[i] {
					return false
				}
			}
			return true
		})
	}
	stop()
	watchers.Wait()
}
