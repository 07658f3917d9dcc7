package adminapi

import (
	"context"

	"github.com/google/uuid"
	"google.golang.org/grpc"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/rotation"
)

// Rotator replaces accounts' keys; *rotation.Desk does.
type Rotator interface {
	Rotate(ctx context.Context, r rotation.Request, tell func(rotation.Progress) error) error
}

const (
	// maxIgnored bounds the replicas that a rotation does not wait for, and
	// maxAccount an account's name, in characters.
	maxIgnored = 100
	maxAccount = 63
)

type accounts struct {
	stokerv1.UnsafeAccountServiceServer
	*API
}

var rotationSteps = map[rotation.Step]stokerv1.KeyRotationStep{
	rotation.Planned:  stokerv1.KeyRotationStep_KEY_ROTATION_STEP_PLANNED,
	rotation.Created:  stokerv1.KeyRotationStep_KEY_ROTATION_STEP_CREATED,
	rotation.Verified: stokerv1.KeyRotationStep_KEY_ROTATION_STEP_VERIFIED,
	rotation.Switched: stokerv1.KeyRotationStep_KEY_ROTATION_STEP_SWITCHED,
	rotation.Adopted:  stokerv1.KeyRotationStep_KEY_ROTATION_STEP_ADOPTED,
	rotation.Disabled: stokerv1.KeyRotationStep_KEY_ROTATION_STEP_DISABLED,
	rotation.Deleted:  stokerv1.KeyRotationStep_KEY_ROTATION_STEP_DELETED,
	rotation.Reverted: stokerv1.KeyRotationStep_KEY_ROTATION_STEP_REVERTED,
}

// RotateAccountKey implements stokerv1.AccountServiceServer.
func (s accounts) RotateAccountKey(r *stokerv1.RotateAccountKeyRequest, out grpc.ServerStreamingServer[stokerv1.RotateAccountKeyResponse]) error {
	if r.GetAccount() == "" {
		return invalid("account", "is missing; name an account of the broker's configuration")
	}
	if err := checkText("account", r.GetAccount(), maxAccount); err != nil {
		return err
	}
	if len(r.GetIgnoredReplicas()) > maxIgnored {
		return invalid("ignored_replicas", "are %d; name at most %d", len(r.GetIgnoredReplicas()), maxIgnored)
	}
	for _, writer := range r.GetIgnoredReplicas() {
		if err := uuid.Validate(writer); err != nil || len(writer) != 36 {
			return invalid("ignored_replicas", "%.70q is no replica's name; GetStatus lists them", writer)
		}
	}
	ctx, stop := s.untilStopping(out.Context())
	defer stop()
	return s.Rotator.Rotate(ctx, rotation.Request{
		Account: r.GetAccount(), Abort: r.GetAbort(), DryRun: r.GetDryRun(), Ignored: r.GetIgnoredReplicas(),
		Record: s.record(ctx, audit.AccountKeyRotated),
	}, func(p rotation.Progress) error {
		return out.Send(&stokerv1.RotateAccountKeyResponse{Step: rotationSteps[p.Step], AccessKeyId: p.AccessKeyID, Message: p.Message})
	})
}
