package issuer

import (
	"context"
	"errors"
	"testing"

	"github.com/stokerd/stoker/server/internal/issuer/devsts"
)

func TestCallerAndKeys(t *testing.T) {
	f := start(t)
	sts := open(t, f.account(FederationToken))
	arn, err := sts.Caller(t.Context())
	if err != nil || arn != "arn:aws:iam::000000000000:user/broker" {
		t.Errorf("the caller is %q, %v", arn, err)
	}
	own, err := sts.Keys().Retrieve(t.Context())
	if err != nil || own.AccessKeyID != f.user.AccessKeyID {
		t.Errorf("the keys are %q, %v", own.AccessKeyID, err)
	}
	if err := f.Inject(devsts.Fault{Kind: devsts.Throttle, Count: 1}); err != nil {
		t.Fatal(err)
	}
	_, err = sts.Caller(t.Context())
	if failure, ok := errors.AsType[*Error](err); !ok || failure.Kind != Throttled || failure.Operation != "GetCallerIdentity" {
		t.Errorf("throttled: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = sts.Caller(ctx)
	if failure, ok := errors.AsType[*Error](err); !ok || failure.Code != CodeCanceled {
		t.Errorf("canceled: %v", err)
	}
}
