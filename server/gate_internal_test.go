package server

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/peer"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/admission"
	"github.com/stokerd/stoker/server/internal/reason"
)

// wantBusy checks that an agent is told when to come back.
func wantBusy(t *testing.T, err error, least, most time.Duration) time.Duration {
	t.Helper()
	if reason.Of(err) != reason.BrokerBusy {
		t.Fatalf("answered %v, not BROKER_BUSY", err)
	}
	told, _ := errors.AsType[*reason.Error](err)
	wait := told.RetryAfter
	if wait < least || wait > most {
		t.Errorf("told to wait %v, not from %v to %v", wait, least, most)
	}
	return wait
}

// Streams beyond what may be at the gate are told when to come back, each at
// another time; calls that are no streams pass.
func TestGateTellsAgentsWhenToComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 3
		entry, stream, unary := admission.NewTurnstile(most), &call{streams: true}, &call{}
		var leave []func()
		for range most {
			left, err := admit(t.Context(), stream, entry)
			if err != nil {
				t.Fatal(err)
			}
			leave = append(leave, left)
		}
		last := time.Duration(0)
		for range 10 {
			_, err := admit(t.Context(), stream, entry)
			if wait := wantBusy(t, err, time.Second, time.Minute); wait == last {
				t.Errorf("two are told to come back in %v", wait)
			} else {
				last = wait
			}
		}
		if _, err := admit(t.Context(), unary, entry); err != nil {
			t.Errorf("a call that is no stream: %v", err)
		}
		leave[0]()
		if _, err := admit(t.Context(), stream, entry); err != nil {
			t.Errorf("a place that was given up: %v", err)
		}
	})
}

// An agent on a connection of the reserve is told when to come back, whatever
// it calls; but it may renew its certificate.
func TestFullBrokerTellsAgentsWhenToComeBack(t *testing.T) {
	ctx := peer.NewContext(t.Context(), &peer.Peer{AuthInfo: &connection{spare: true}})
	for _, c := range []*call{{streams: true}, {}} {
		_, err := admit(ctx, c, admission.NewTurnstile(1))
		wantBusy(t, err, fullFor, 2*fullFor)
	}
	if _, err := admit(ctx, &call{method: stokerv1.EnrollmentService_RenewCertificate_FullMethodName}, nil); err != nil {
		t.Errorf("renewing a certificate: %v", err)
	}
	if _, err := admit(context.Background(), &call{}, nil); err != nil {
		t.Errorf("a connection of another sort: %v", err)
	}
}
