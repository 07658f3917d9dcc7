package server_test

import (
	"errors"
	"io"
	"testing"
	"time"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server"
	"github.com/stokerd/stoker/server/internal/brokertest"
	"github.com/stokerd/stoker/server/internal/issuer/devsts"
	"github.com/stokerd/stoker/server/internal/reason"
)

// rotateKey rotates the key of the account main, and gives the steps.
func rotateKey(t *testing.T, b *brokertest.Broker, r *stokerv1.RotateAccountKeyRequest) (steps []stokerv1.KeyRotationStep, err error) {
	t.Helper()
	stream, err := stokerv1.NewAccountServiceClient(b.Admin).RotateAccountKey(t.Context(), r)
	wantOK(t, err)
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return steps, nil
		}
		if err != nil {
			return steps, err
		}
		steps = append(steps, m.GetStep())
	}
}

// The key of a broker is replaced under open streams, whose renewals go on at
// every step: none is told of a problem.
func TestRotateAccountKeyUnderStreams(t *testing.T) {
	var stoker devsts.User
	b := brokertest.Start(t, brokertest.Options{STS: func(c *devsts.Config) { stoker = c.Users[0] }})
	b.Location(&stokerv1.Location{Name: "main", Bucket: "shared-bucket"})
	var streams []*watched
	for _, tenant := range []string{"acme", "borg", "corp"} {
		streams = append(streams, subscribe(t, join(t, b, tenant, 2*time.Second)))
	}
	for _, s := range streams {
		s.credential()
	}
	before, _ := b.STS.AccessKeys(stoker.Name)
	// Cut off in the middle, then to the end, then once more from a stored key.
	wantOK(t, b.STS.Inject(devsts.Fault{Kind: devsts.Deny, Action: "UpdateAccessKey", Count: 1}))
	_, err := rotateKey(t, b, &stokerv1.RotateAccountKeyRequest{Account: "main"})
	wantReason(t, err, reason.KeyRotationBlocked)
	steps, err := rotateKey(t, b, &stokerv1.RotateAccountKeyRequest{Account: "main"})
	wantOK(t, err)
	if steps[len(steps)-1] != stokerv1.KeyRotationStep_KEY_ROTATION_STEP_DELETED {
		t.Errorf("steps %v", steps)
	}
	after, active := b.STS.AccessKeys(stoker.Name)
	if len(after) != 1 || !active[0] || after[0] == before[0] {
		t.Errorf("the keys were %v, are %v", before, after)
	}
	// Each stream was renewed over and over, and heard nothing else.
	for _, s := range streams {
		renewals := 0
		for _, m := range s.soFar() {
			if m.GetProblem() != nil || m.GetRevocation() != nil {
				t.Errorf("a stream was told %v", m)
			}
			if m.GetCredential() != nil {
				renewals++
			}
		}
		if renewals < 5 {
			t.Errorf("only %d credentials came in all that time", renewals)
		}
		s.credential()
	}
	// A restart: what is configured is the key that was deleted.
	b.Restart()
	join(t, b, "late", time.Hour).works(t)
	for action, n := range b.STS.Calls() {
		if action == "CreateAccessKey" && n != 1 {
			t.Errorf("%d keys were created", n)
		}
	}
}

func TestRotationsThatAreRefused(t *testing.T) {
	b := brokertest.Start(t, brokertest.Options{Configure: func(c *server.Config) { c.Operators["otto"] = "operator" }})
	for name, c := range map[string]struct {
		request *stokerv1.RotateAccountKeyRequest
		want    reason.Reason
	}{
		"no account":       {&stokerv1.RotateAccountKeyRequest{}, reason.InvalidRequest},
		"an unknown one":   {&stokerv1.RotateAccountKeyRequest{Account: "other"}, reason.NotFound},
		"no replica":       {&stokerv1.RotateAccountKeyRequest{Account: "main", IgnoredReplicas: []string{"x"}}, reason.InvalidRequest},
		"too many":         {&stokerv1.RotateAccountKeyRequest{Account: "main", IgnoredReplicas: make([]string, 101)}, reason.InvalidRequest},
		"nothing to abort": {&stokerv1.RotateAccountKeyRequest{Account: "main", Abort: true}, reason.KeyRotationBlocked},
	} {
		_, err := rotateKey(t, b, c.request)
		if got := reasonOf(err); got != string(c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	stream, err := stokerv1.NewAccountServiceClient(b.Dial(b.IssueOperator("otto"))).RotateAccountKey(t.Context(), &stokerv1.RotateAccountKeyRequest{Account: "main"})
	wantOK(t, err)
	_, err = stream.Recv()
	wantReason(t, err, reason.RoleTooLow)
}

// soFar gives the messages that have come and were not read.
func (w *watched) soFar() (messages []*stokerv1.StreamCredentialsResponse) {
	for {
		select {
		case m, ok := <-w.messages:
			if !ok {
				w.t.Fatalf("the stream ended with %v", w.err)
			}
			messages = append(messages, m)
		default:
			return messages
		}
	}
}
