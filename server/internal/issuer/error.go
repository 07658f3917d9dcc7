package issuer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Kind says what waiting does for a failure.
type Kind string

const (
	// Permanent failures come again until the request, the grant, the account
	// or the broker's rights change.
	Permanent Kind = "permanent"
	// Throttled means that STS wants fewer calls. The same call works later.
	Throttled Kind = "throttled"
	// Transient failures may pass by themselves.
	Transient Kind = "transient"
)

// Codes of failures that are not an error answer of STS. Every other Code is
// the one that STS gave.
const (
	// CodeRefused: this package refused the request and did not send it.
	CodeRefused = "RefusedBeforeCall"
	// CodeCanceled: the caller's context was canceled.
	CodeCanceled = "Canceled"
	// CodeTimeout: no answer within the account's Timeout or the caller's
	// deadline.
	CodeTimeout = "Timeout"
	// CodeUnreachable: no connection, or it broke before the answer was whole.
	CodeUnreachable = "Unreachable"
	// CodeGarbled: the answer cannot be what STS meant to say. Nothing of it
	// is used.
	CodeGarbled = "GarbledAnswer"
	// CodeNoKeys: the broker's own keys cannot be had from their source.
	CodeNoKeys = "NoBrokerKeys"
)

// Error is a failed Issue.
type Error struct {
	Kind Kind
	// Code is the error code of STS or one of this package's.
	Code string
	// HTTPStatus is that of the answer; 0 where there was none.
	HTTPStatus int
	// Message is one line for operators. It contains no secret key and no
	// session token, whatever the answer contained.
	Message string
	// RequestID is the one that STS gave to the call; may be empty.
	RequestID string
	// RetryAfter is how long STS asked to wait; 0 where it did not say.
	RetryAfter time.Duration
	// Account is the account's name, Operation the STS call.
	Account, Operation string

	// err is context.Canceled, context.DeadlineExceeded or nil. What the SDK
	// returned is not kept: it holds the answer's own text.
	err error
}

// Error gives the failure in one line.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "account %q: %s: %s", e.Account, e.Operation, e.Code)
	if e.HTTPStatus != 0 {
		fmt.Fprintf(&b, " (HTTP %d)", e.HTTPStatus)
	}
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	if e.RequestID != "" {
		b.WriteString(" [request " + e.RequestID + "]")
	}
	return b.String()
}

// Unwrap gives context.Canceled or context.DeadlineExceeded where one of them
// was the cause.
func (e *Error) Unwrap() error { return e.err }

// kinds has the codes of STS whose kind does not follow from the HTTP status
// alone. The retry package knows the codes that mean throttling.
var kinds = map[string]Kind{
	// The broker's own temporary keys have expired. Their source gives new ones.
	"ExpiredToken":          Transient,
	"ExpiredTokenException": Transient,
	// The clocks differ too much. The SDK corrects its clock from this answer.
	"RequestExpired":             Transient,
	"RequestTimeTooSkewed":       Transient,
	"RequestInTheFuture":         Transient,
	"InternalFailure":            Transient,
	"InternalError":              Transient,
	"ServiceUnavailable":         Transient,
	"RequestTimeout":             Transient,
	"RequestTimeoutException":    Transient,
	"MalformedPolicyDocument":    Permanent,
	"PackedPolicyTooLarge":       Permanent,
	"RegionDisabledException":    Permanent,
	"AccessDenied":               Permanent,
	"AccessDeniedException":      Permanent,
	"InvalidClientTokenId":       Permanent,
	"InvalidAccessKeyId":         Permanent,
	"SignatureDoesNotMatch":      Permanent,
	"IncompleteSignature":        Permanent,
	"MissingAuthenticationToken": Permanent,
	"ValidationError":            Permanent,
	"InvalidParameterValue":      Permanent,
	"InvalidAction":              Permanent,
	"OptInRequired":              Permanent,
}

// classify turns what the SDK returned into an Error. The caller's context
// tells its own end from the call's time limit.
func (s *STS) classify(caller context.Context, operation string, err error, hide scrubber) *Error {
	e := &Error{Account: s.account.Name, Operation: operation}
	var response *smithyhttp.ResponseError
	if errors.As(err, &response) && response.Response != nil {
		e.HTTPStatus = response.HTTPStatusCode()
		e.RetryAfter = retryAfter(response.Response.Header)
	}
	if withID, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		e.RequestID = hide.line(withID.ServiceRequestID(), 64)
	}
	api, isAnswer := errors.AsType[smithy.APIError](err)
	switch {
	case isAnswer && api.ErrorCode() != "UnknownError":
		e.fromAnswer(api, hide)
		e.Kind = kindOf(err, api, e.HTTPStatus)
	case e.endedByContext(caller, err, s.account.Timeout):
	case e.HTTPStatus == http.StatusTooManyRequests:
		e.Kind, e.Code = Throttled, "TooManyRequests"
		e.Message = "the answer is no STS error, but its status asks for fewer calls"
	case e.HTTPStatus != 0 && brokeOff(err):
		e.Kind, e.Code = Transient, CodeUnreachable
		e.Message = "the connection broke before the answer was whole"
	case e.HTTPStatus != 0:
		e.Kind, e.Code = Transient, CodeGarbled
		e.Message = "the answer is not in the Query protocol's form: something other than an STS may be answering"
	default:
		e.Kind, e.Code = Transient, CodeUnreachable
		e.Message = hide.line(transportText(err), maxMessage)
	}
	return e
}

// brokeOff says whether reading the answer failed, as opposed to making sense
// of it.
func brokeOff(err error) bool {
	_, network := errors.AsType[*net.OpError](err)
	return network || errors.Is(err, io.ErrUnexpectedEOF)
}

// transportText is the part of an error that names address and cause, without
// the SDK's layers around it.
func transportText(err error) string {
	if request, ok := errors.AsType[*url.Error](err); ok {
		return request.Error()
	}
	return err.Error()
}

func (e *Error) fromAnswer(api smithy.APIError, hide scrubber) {
	e.Code = hide.line(api.ErrorCode(), 64)
	e.Message = hide.line(api.ErrorMessage(), maxMessage)
}

// endedByContext fills the error if a context ended the call.
func (e *Error) endedByContext(caller context.Context, err error, limit time.Duration) bool {
	switch {
	case errors.Is(caller.Err(), context.Canceled):
		e.Kind, e.Code, e.err = Transient, CodeCanceled, context.Canceled
		e.Message = "the caller gave up"
	case errors.Is(caller.Err(), context.DeadlineExceeded):
		e.Kind, e.Code, e.err = Transient, CodeTimeout, context.DeadlineExceeded
		e.Message = "no answer before the caller's deadline"
	case isTimeout(err):
		e.Kind, e.Code, e.err = Transient, CodeTimeout, context.DeadlineExceeded
		e.Message = fmt.Sprintf("no answer within %s", limit)
	default:
		return false
	}
	return true
}

// isTimeout also covers the HTTP client's own time limits.
func isTimeout(err error) bool {
	timeout, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return errors.Is(err, context.DeadlineExceeded) || ok && timeout.Timeout()
}

// kindOf sorts an error answer. A status of 500 and over outweighs the code,
// because servers in trouble name all sorts of causes.
func kindOf(err error, api smithy.APIError, status int) Kind {
	code := api.ErrorCode()
	_, throttled := retry.DefaultThrottleErrorCodes[code]
	switch kind, known := kinds[code]; {
	case throttled, code == "SlowDown", code == "TooManyRequests", status == http.StatusTooManyRequests:
		return Throttled
	case status >= 500:
		return Transient
	case clockSkewed(err), minioStarting(api):
		return Transient
	case known:
		return kind
	case status == http.StatusRequestTimeout:
		return Transient
	}
	return Permanent
}

// clockSkewed says whether the SDK found the refused signature to be the
// clocks' fault. It then corrects its clock, and the next call may work.
func clockSkewed(err error) bool {
	retryable := retry.RetryableError{}.IsErrorRetryable(err)
	api, ok := errors.AsType[smithy.APIError](err)
	return ok && api.ErrorCode() == "SignatureDoesNotMatch" && retryable == aws.TrueTernary
}

// minioStarting says whether the answer is MinIO's while it still loads its
// users. It has no code or status of its own for that.
func minioStarting(api smithy.APIError) bool {
	return api.ErrorCode() == "InvalidParameterValue" && strings.Contains(api.ErrorMessage(), "not initialized, please try again")
}

// maxRetryAfter bounds what an answer may ask for: a lease must not sleep
// through its credential's whole life because of one header.
const maxRetryAfter = 5 * time.Minute

// retryAfter reads the header's form in seconds. STS does not send dates.
func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.Atoi(strings.TrimSpace(h.Get("Retry-After")))
	if err != nil || seconds <= 0 {
		return 0
	}
	return min(time.Duration(min(seconds, 3600))*time.Second, maxRetryAfter)
}
