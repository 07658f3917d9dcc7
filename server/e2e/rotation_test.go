package e2e_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/stokerd/stoker/internal/partner/postgres"
	"github.com/stokerd/stoker/internal/polling"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/brokertest"
)

// A key is rotated at one replica: the other takes the new one before the old
// one goes, and neither one's streams notice.
func TestRotateAccountKeyOnTwoReplicas(t *testing.T) {
	db := postgres.Start(t)
	a, b, password := replicated(t, db.Database(t))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	_, err := stokerv1.NewGrantServiceClient(a.Admin).UpdateGrant(ctx, &stokerv1.UpdateGrantRequest{
		Grant:      &stokerv1.Grant{Tenant: "acme", Name: "nightly", Lifetime: durationpb.New(6 * time.Second)},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"lifetime"}},
	})
	must(t, err)
	// One stream on each, of two agents, read until told to stop.
	stop, done := make(chan struct{}), make(chan int, 2)
	for i, broker := range []*brokertest.Broker{a, b} {
		agents := stokerv1.NewCredentialServiceClient(broker.Dial(a.Agent("acme", []string{"one", "two"}[i])))
		stream := subscribed(brokertest.Basic(ctx, "backup@acme", password), t, agents)
		go func() {
			credentials := 0
			defer func() { done <- credentials }()
			for {
				m, err := stream.Recv()
				if err != nil || m.GetProblem() != nil || m.GetRevocation() != nil {
					t.Errorf("a stream got %v, %v", m, err)
					return
				}
				if m.GetCredential() != nil {
					credentials++
					select {
					case <-stop:
						return
					default:
					}
				}
			}
		}()
	}
	polling.Until(ctx, t, "both replicas to be listed", func() bool {
		status, err := stokerv1.NewFleetServiceClient(a.Admin).GetStatus(ctx, &stokerv1.GetStatusRequest{})
		return err == nil && len(status.GetReplicas()) == 2
	})
	before, _ := a.STS.AccessKeys("stoker")
	steps, err := stokerv1.NewAccountServiceClient(a.Admin).RotateAccountKey(ctx, &stokerv1.RotateAccountKeyRequest{Account: "main"})
	must(t, err)
	for {
		m, err := steps.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		t.Log(m.GetStep(), m.GetAccessKeyId(), m.GetMessage())
	}
	after, _ := a.STS.AccessKeys("stoker")
	if len(after) != 1 || after[0] == before[0] {
		t.Errorf("the keys were %v, are %v", before, after)
	}
	close(stop)
	for range 2 {
		if n := <-done; n < 3 {
			t.Errorf("a stream got %d credentials", n)
		}
	}
	adopted, err := stokerv1.NewAuditServiceClient(b.Admin).ListRecords(ctx, &stokerv1.ListRecordsRequest{Events: []string{"account.key_adopted"}})
	must(t, err)
	writers := map[string]bool{}
	for _, r := range adopted.GetRecords() {
		writers[r.GetWriter()] = true
	}
	if len(writers) != 2 {
		t.Errorf("%d replicas wrote that they use the new key", len(writers))
	}
}
