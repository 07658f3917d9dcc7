package server_test

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"testing"
	"time"

	stoker "github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/internal/polling"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/brokertest"
)

// restorer is an internal service that embeds the client.
func restorer(b *brokertest.Broker, t *testing.T) stoker.Config {
	return stoker.Config{
		ServerName: "localhost", Brokers: []string{b.Addr},
		TLS:        &tls.Config{RootCAs: b.Roots, Certificates: []tls.Certificate{b.IssueService("restorer")}, MinVersion: tls.VersionTLS13},
		Delegation: &stoker.Delegation{Tenant: "acme", Grant: "nightly", Reason: "ticket 4711"},
		Logger:     slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

// A long restore never sees a credential that has ended: not over renewals, and
// not over a restart of the broker, which costs no call to STS.
func TestServiceEmbedsTheClient(t *testing.T) {
	t.Parallel() // it waits most of the time
	b, _ := acme(t, brokertest.Options{Configure: withServices}, 6*time.Second)
	source, err := stoker.New(t.Context(), restorer(b, t))
	wantOK(t, err)
	defer func() { _ = source.Close() }()
	wantOK(t, source.Wait(t.Context()))
	provider := source.CredentialsProvider("")
	keys := map[string]bool{}
	use := func() {
		t.Helper()
		c, err := provider.Retrieve(t.Context())
		wantOK(t, err)
		keys[c.AccessKeyID] = true
	}
	polling.Until(t.Context(), t, "three credentials", func() bool { use(); return len(keys) >= 3 })
	b.Restart()
	seen := len(keys)
	polling.Until(t.Context(), t, "two more credentials after the restart", func() bool { use(); return len(keys) >= seen+2 })
	status := source.Status()
	if !status.Connected {
		t.Error("not connected")
	}

	disableGrant(t, stokerv1.NewGrantServiceClient(b.Admin), true)
	polling.Until(t.Context(), t, "the grant to be disabled", func() bool {
		_, err := provider.Retrieve(t.Context())
		return errors.Is(err, stoker.ErrRevoked) && stoker.ReasonOf(err) == stoker.ReasonGrantDisabled
	})
	disableGrant(t, stokerv1.NewGrantServiceClient(b.Admin), false)
}

func TestServiceFetchesOnce(t *testing.T) {
	b, _ := acme(t, brokertest.Options{Configure: withServices}, time.Hour)
	got, err := stoker.Fetch(t.Context(), restorer(b, t), 0)
	wantOK(t, err)
	if len(got) != 1 || got[0].Grant != "nightly" || got[0].Target.Prefix != "acme/" {
		t.Errorf("got %v", got)
	}
	refused := restorer(b, t)
	refused.Delegation.Tenant = "other"
	if _, err := stoker.Fetch(t.Context(), refused, 0); stoker.ReasonOf(err) != stoker.ReasonDelegationDenied {
		t.Errorf("got %v", err)
	}
	source, err := stoker.New(t.Context(), refused)
	wantOK(t, err)
	defer func() { _ = source.Close() }()
	if err := source.Wait(t.Context()); stoker.ReasonOf(err) != stoker.ReasonDelegationDenied {
		t.Errorf("got %v", err)
	}
}
