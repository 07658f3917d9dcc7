package apierr_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/apierr"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

func details(t *testing.T, st *status.Status) (info *errdetails.ErrorInfo, retry *errdetails.RetryInfo, request *errdetails.RequestInfo) {
	t.Helper()
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.RetryInfo:
			retry = d
		case *errdetails.RequestInfo:
			request = d
		default:
			t.Errorf("unexpected detail %T", d)
		}
	}
	return info, retry, request
}

// The table, the API's enum with its comments, and the codes say the same.
func TestEveryReasonIsInTheAPI(t *testing.T) {
	source, err := os.ReadFile("../../../proto/stoker/v1/errors.proto")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	entry := regexp.MustCompile(`((?:  //[^\n]*\n)+)  ERROR_REASON_(\w+) = \d+;`)
	for _, m := range entry.FindAllStringSubmatch(string(source), -1) {
		lines := strings.Split(strings.TrimSpace(m[1]), "\n")
		for i := range lines {
			lines[i] = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(lines[i]), "//"))
		}
		documented[m[2]] = strings.Join(lines, " ")
	}
	for _, row := range reason.Table {
		if _, ok := stokerv1.ErrorReason_value["ERROR_REASON_"+string(row.Reason)]; !ok {
			t.Errorf("%s is not in ErrorReason", row.Reason)
		}
		want := "Permanent. " + row.Doc
		if row.Transient {
			want = "Transient. " + row.Doc
		}
		if got := documented[string(row.Reason)]; got != want {
			t.Errorf("%s: the proto says %q, the table %q", row.Reason, got, want)
		}
		if row.Reason != reason.Internal && apierr.Code(row.Reason) == codes.Internal {
			t.Errorf("%s has no status code", row.Reason)
		}
	}
	if got, want := len(stokerv1.ErrorReason_value)-1, len(reason.Table); got != want {
		t.Errorf("the enum has %d reasons, the table %d", got, want)
	}
}

func TestStatusOfAReason(t *testing.T) {
	ctx := apierr.WithRequestID(context.Background(), "req-1")
	secretCause := errors.New("dial tcp 10.1.2.3:443: refused")
	err := fmt.Errorf("issuing: %w", reason.New(reason.STSThrottled, "the STS is throttling").
		Because(secretCause).After(3*time.Second).With("grant", "nightly"))

	st := apierr.Status(ctx, err)
	info, retry, request := details(t, st)
	switch {
	case st.Code() != codes.Unavailable, st.Message() != "the STS is throttling":
		t.Errorf("status %v %q", st.Code(), st.Message())
	case info.GetReason() != "STS_THROTTLED", info.GetDomain() != "stoker", info.GetMetadata()["grant"] != "nightly":
		t.Errorf("info %v", info)
	case retry.GetRetryDelay().AsDuration() != 3*time.Second:
		t.Errorf("retry %v", retry)
	case request.GetRequestId() != "req-1":
		t.Errorf("request %v", request)
	case apierr.Reason(st) != reason.STSThrottled, apierr.Reason(status.New(codes.Internal, "x")) != "":
		t.Errorf("reason %q", apierr.Reason(st))
	case strings.Contains(st.Proto().String(), "10.1.2.3"):
		t.Error("the private cause reached the caller")
	}
}

func TestUnknownErrorsAreInternalWithAFixedText(t *testing.T) {
	ctx := apierr.WithRequestID(context.Background(), "req-2")
	for _, err := range []error{
		errors.New("pq: password authentication failed for user stoker"),
		reason.New(reason.Internal, "password authentication failed"),
	} {
		st := apierr.Status(ctx, err)
		info, _, request := details(t, st)
		if st.Code() != codes.Internal || strings.Contains(st.Message(), "authentication") {
			t.Errorf("%v became %v %q", err, st.Code(), st.Message())
		}
		if info.GetReason() != "INTERNAL" || request.GetRequestId() != "req-2" {
			t.Errorf("details %v %v", info, request)
		}
		if !apierr.Unexplained(err) {
			t.Errorf("%v would not be logged", err)
		}
	}
}

func TestStorageErrorsHaveTheirReasons(t *testing.T) {
	for err, want := range map[error]reason.Reason{
		storage.ErrNotFound:    reason.NotFound,
		storage.ErrExists:      reason.AlreadyExists,
		storage.ErrConflict:    reason.EtagMismatch,
		storage.ErrInUse:       reason.InUse,
		storage.ErrUnavailable: reason.StorageUnavailable,
	} {
		info, _, _ := details(t, apierr.Status(context.Background(), fmt.Errorf("wrapped: %w", err)))
		if info.GetReason() != string(want) {
			t.Errorf("%v became %v", err, info)
		}
	}
}

func TestWhatGRPCSaysPasses(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		err  error
		want codes.Code
	}{
		{nil, codes.OK},
		{context.Canceled, codes.Canceled},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), codes.DeadlineExceeded},
		{status.Error(codes.ResourceExhausted, "message too large"), codes.ResourceExhausted},
	} {
		if got := apierr.Status(ctx, c.err).Code(); got != c.want {
			t.Errorf("%v became %v", c.err, got)
		}
		if apierr.Unexplained(c.err) {
			t.Errorf("%v counts as unexplained", c.err)
		}
	}
}
