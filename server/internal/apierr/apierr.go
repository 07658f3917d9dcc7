package apierr

import (
	"context"
	"errors"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// Domain is the domain of every ErrorInfo that the broker sends.
const Domain = "stoker"

// internalText is all that a caller learns of an error without a reason.
const internalText = "the broker failed; give the request id to the provider"

// requestIDKey carries the request id in a context.
type requestIDKey struct{}

// WithRequestID remembers the call's request id, which every error then names.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey{}, id)
}

// RequestID gives the call's request id, or "".
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

// Status turns an error into the status that the caller of ctx gets. Nil gives
// OK. Statuses made by gRPC itself (a cancelled receive, a message over the
// limit) pass as they are.
func Status(ctx context.Context, err error) *status.Status {
	if err == nil {
		return status.New(codes.OK, "")
	}
	var known *reason.Error
	if errors.As(err, &known) {
		return fromReason(ctx, known)
	}
	if errors.Is(err, context.Canceled) {
		return status.New(codes.Canceled, "the call was cancelled")
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return status.New(codes.DeadlineExceeded, "the call's deadline passed")
	}
	if st, ok := status.FromError(err); ok {
		return st
	}
	return fromReason(ctx, fromStorage(err))
}

// Error is Status as an error.
func Error(ctx context.Context, err error) error {
	return Status(ctx, err).Err()
}

// Unexplained says whether the caller learns nothing of err but that the broker
// failed: such an error belongs in the log whole.
func Unexplained(err error) bool {
	var known *reason.Error
	if errors.As(err, &known) {
		return known.Reason == reason.Internal
	}
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	if _, ok := status.FromError(err); ok {
		return false
	}
	return fromStorage(err).Reason == reason.Internal
}

// fromStorage gives a bare storage error its reason. A domain package that can
// say more wraps it in a reason of its own first.
func fromStorage(err error) *reason.Error {
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return reason.New(reason.NotFound, "no such resource").Because(err)
	case errors.Is(err, storage.ErrExists):
		return reason.New(reason.AlreadyExists, "the name is taken").Because(err)
	case errors.Is(err, storage.ErrConflict):
		return reason.New(reason.EtagMismatch, "the resource changed meanwhile; read it again").Because(err)
	case errors.Is(err, storage.ErrInUse):
		return reason.New(reason.InUse, "the resource is still in use").Because(err)
	case errors.Is(err, storage.ErrUnavailable):
		return reason.New(reason.StorageUnavailable, "the broker's storage does not answer").Because(err)
	default:
		return reason.New(reason.Internal, internalText).Because(err)
	}
}

func fromReason(ctx context.Context, e *reason.Error) *status.Status {
	message := e.Message
	if e.Reason == reason.Internal {
		message = internalText
	}
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{
		Reason: string(e.Reason), Domain: Domain, Metadata: e.Metadata,
	}}
	if e.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	}
	if id := RequestID(ctx); id != "" {
		details = append(details, &errdetails.RequestInfo{RequestId: id})
	}
	st, err := status.New(Code(e.Reason), message).WithDetails(details...)
	if err != nil {
		// Only an OK code or a message that cannot be marshaled gets here;
		// the table's test rules out the first, UTF-8 checks the second.
		return status.New(codes.Internal, internalText)
	}
	return st
}

// Reason gives the reason in a status, or "".
func Reason(st *status.Status) reason.Reason {
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == Domain {
			return reason.Reason(info.GetReason())
		}
	}
	return ""
}
