package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The exit codes. docs/stokerctl.md lists them; a test compares.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitRefused     = 3
	exitUnavailable = 4
	exitNotFound    = 5
	exitConflict    = 6
)

// usageError says that the command line or a file is wrong. Nothing was asked
// of the broker, or the broker said so.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// hints say what to do about a reason, where the broker's message cannot: it
// does not know what the person typed.
var hints = map[string]string{
	"ALREADY_EXISTS":               "change it with update, or let apply do what is needed",
	"AUDIT_UNAVAILABLE":            "the broker changes nothing that it cannot record; look at its log",
	"CALL_NOT_ALLOWED":             "stokerctl needs an operator's certificate: stokerd certificate operator NAME makes one",
	"CERTIFICATE_EXPIRED":          "make a new certificate: stokerd certificate operator NAME",
	"CERTIFICATE_IDENTITY_INVALID": "stokerctl needs an operator's certificate: stokerd certificate operator NAME makes one",
	"CERTIFICATE_REVOKED":          "make a new certificate: stokerd certificate operator NAME",
	"ETAG_MISMATCH":                "read it again with get, and repeat the change with its etag",
	"IN_USE":                       "grant list TENANT shows who uses what",
	"NOT_FOUND":                    "list shows what there is",
	"NO_AUTHORITY":                 "the broker's configuration has a tls section; certificates come from that PKI",
	"OPERATOR_UNKNOWN":             "add the name to operators in the broker's configuration, and restart the broker",
	"PASSWORD_WEAK":                "--generate makes a good one",
	"ROLE_TOO_LOW":                 "operators in the broker's configuration gives each name its role",
	"STORAGE_UNAVAILABLE":          "look at the broker's log and its storage",
}

// failure is what went wrong, as far as it can be told.
type failure struct {
	code   int
	reason string
	text   string
	hint   string
}

// report prints an error and gives the exit code.
func (t *terminal) report(err error) int {
	if err == nil {
		return exitDone
	}
	f := explain(err)
	// A file with several faults has a line for each.
	lines := strings.Split(f.text, "\n")
	for i := range lines {
		lines[i] = clean(lines[i])
	}
	text := strings.Join(lines, "\n")
	if f.reason != "" {
		text += " (" + clean(f.reason) + ")"
	}
	t.say("stokerctl: %s", text)
	if f.hint != "" {
		t.say("hint: %s", f.hint)
	}
	return f.code
}

func explain(err error) failure {
	var partial *partialError
	if errors.As(err, &partial) {
		f := explain(partial.cause)
		f.text = partial.at + ": " + f.text
		f.hint = fmt.Sprintf("%d of %d changes are done; correct what is wrong and apply the file again", partial.done, partial.of)
		return f
	}
	var usage *usageError
	if errors.As(err, &usage) {
		return failure{code: exitUsage, text: err.Error()}
	}
	var answered interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &answered) {
		return failure{code: exitFailed, text: err.Error()}
	}
	st := answered.GRPCStatus()
	f := failure{code: exitCode(st.Code()), text: st.Message()}
	requestID := ""
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == "stoker" {
				f.reason = d.GetReason()
			}
		case *errdetails.RetryInfo:
			f.text += fmt.Sprintf("; try again in %s", max(d.GetRetryDelay().AsDuration().Round(time.Second), time.Second))
		case *errdetails.RequestInfo:
			requestID = d.GetRequestId()
		}
	}
	f.hint = hints[f.reason]
	if f.reason == "" {
		f.text, f.hint = withoutReason(st)
	}
	if st.Code() == codes.Internal && requestID != "" {
		f.text += "; request id " + requestID
	}
	return f
}

// withoutReason explains what gRPC itself says: the broker did not answer, or
// is none.
func withoutReason(st *status.Status) (text, hint string) {
	switch st.Code() {
	case codes.Unavailable:
		return "the broker cannot be reached: " + st.Message(),
			"check --broker; --ca must name the authority of the broker's certificate, and the broker must trust that of --cert"
	case codes.DeadlineExceeded:
		return "the broker did not answer in time", "raise --timeout, or look at the broker's log"
	case codes.Canceled:
		return "interrupted; what was asked for may have been done", ""
	case codes.Unimplemented:
		return "the broker does not know this call: " + st.Message(), "it may be of another version: see stokerctl version"
	}
	return st.Message(), ""
}

func exitCode(c codes.Code) int {
	switch c {
	case codes.InvalidArgument:
		return exitUsage
	case codes.Unauthenticated, codes.PermissionDenied:
		return exitRefused
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted:
		return exitUnavailable
	case codes.NotFound:
		return exitNotFound
	case codes.AlreadyExists, codes.Aborted, codes.FailedPrecondition:
		return exitConflict
	}
	return exitFailed
}
