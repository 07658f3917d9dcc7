package server_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/apierr"
	"github.com/stokerd/stoker/server/internal/brokertest"
	"github.com/stokerd/stoker/server/internal/reason"
)

// patience bounds waiting for what must happen. Nothing is measured by it.
const patience = 20 * time.Second

// wantReason checks that an answer says no more and no less than its reason:
// the code that belongs to it, the domain, a request id, and a time to wait
// only where waiting helps.
func wantReason(t testing.TB, err error, want reason.Reason) *status.Status {
	t.Helper()
	st := status.Convert(err)
	if got := apierr.Reason(st); got != want {
		t.Fatalf("got %v (reason %q), want %s", err, got, want)
	}
	if st.Code() != apierr.Code(want) {
		t.Errorf("%s came with code %s", want, st.Code())
	}
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() != apierr.Domain {
				t.Errorf("%s came with domain %q", want, d.GetDomain())
			}
		case *errdetails.RequestInfo:
			if d.GetRequestId() == "" {
				t.Errorf("%s came without a request id", want)
			}
		case *errdetails.RetryInfo:
			if row, _ := reason.Lookup(want); !row.Transient {
				t.Errorf("%s is permanent and came with %v", want, d)
			}
		default:
			t.Errorf("%s came with %v", want, d)
		}
	}
	return st
}

// wantOK fails the test if there is an error.
func wantOK(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// records lists the audit records of an event about an agent; "" is any.
func records(t testing.TB, b *brokertest.Broker, event, tenant, agent string) []*stokerv1.AuditRecord {
	t.Helper()
	request := &stokerv1.ListRecordsRequest{Events: []string{event}, Tenant: tenant, Agent: agent, PageSize: 1000}
	var all []*stokerv1.AuditRecord
	for {
		page, err := stokerv1.NewAuditServiceClient(b.Admin).ListRecords(t.Context(), request)
		wantOK(t, err)
		all = append(all, page.GetRecords()...)
		if page.GetEnd() {
			return all
		}
		request.PageToken = page.GetNextPageToken()
	}
}

// watched is a stream that is read all the time.
type watched struct {
	stokerv1.CredentialService_StreamCredentialsClient
	t        testing.TB
	messages chan *stokerv1.StreamCredentialsResponse
	// err is why the stream ended and at when, once messages is closed.
	err error
	at  time.Time
}

// subscribe opens a stream and asks for grants; none means all.
func subscribe(t testing.TB, agent agent, grants ...string) *watched {
	t.Helper()
	s, err := stokerv1.NewCredentialServiceClient(agent.conn).StreamCredentials(agent.ctx(t))
	wantOK(t, err)
	w := &watched{CredentialService_StreamCredentialsClient: s, t: t, messages: make(chan *stokerv1.StreamCredentialsResponse, 1000)}
	w.say(&stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_Subscribe{Subscribe: &stokerv1.Subscribe{Grants: grants}}})
	go func() {
		defer close(w.messages)
		for {
			m, err := s.Recv()
			if err != nil {
				w.err, w.at = err, time.Now()
				return
			}
			w.messages <- m
		}
	}()
	return w
}

// say sends a message. A stream that has ended says why when it is read.
func (w *watched) say(m *stokerv1.StreamCredentialsRequest) {
	w.t.Helper()
	if err := w.Send(m); err != nil && !errors.Is(err, io.EOF) {
		w.t.Fatal(err)
	}
}

// until reads messages until one satisfies want.
func (w *watched) until(what string, want func(*stokerv1.StreamCredentialsResponse) bool) *stokerv1.StreamCredentialsResponse {
	w.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case m, ok := <-w.messages:
			if !ok {
				w.t.Fatalf("the stream ended with %v before %s", w.err, what)
			}
			if want(m) {
				return m
			}
		case <-deadline:
			w.t.Fatalf("no %s in %s", what, patience)
		}
	}
}

// credential reads until a credential comes.
func (w *watched) credential() *stokerv1.Credential {
	w.t.Helper()
	return w.until("credential", func(m *stokerv1.StreamCredentialsResponse) bool { return m.GetCredential() != nil }).GetCredential()
}

// problem reads until a problem with the reason comes.
func (w *watched) problem(want reason.Reason) *stokerv1.Problem {
	w.t.Helper()
	return w.until("problem "+string(want), func(m *stokerv1.StreamCredentialsResponse) bool {
		return m.GetProblem() != nil && apierr.Reason(status.FromProto(m.GetProblem().GetStatus())) == want
	}).GetProblem()
}

// revocation reads until a revocation with the reason comes.
func (w *watched) revocation(want reason.Reason) *stokerv1.Revocation {
	w.t.Helper()
	return w.until("revocation "+string(want), func(m *stokerv1.StreamCredentialsResponse) bool {
		return m.GetRevocation() != nil && apierr.Reason(status.FromProto(m.GetRevocation().GetStatus())) == want
	}).GetRevocation()
}

// end waits for the stream's end, and gives the messages that came before it.
func (w *watched) end() (before []*stokerv1.StreamCredentialsResponse) {
	w.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case m, ok := <-w.messages:
			if !ok {
				return before
			}
			before = append(before, m)
		case <-deadline:
			w.t.Fatalf("the stream did not end in %s", patience)
		}
	}
}

// nothingOf checks that a text that left the broker has none of the secrets.
func nothingOf(t testing.TB, where, text string, secrets map[string]string) {
	t.Helper()
	for name, secret := range secrets {
		if secret != "" && strings.Contains(text, secret) {
			t.Errorf("%s has the %s", where, name)
		}
	}
}

// isCode says whether an error of grpc's own has the code, and no reason of
// the broker's.
func isCode(err error, code codes.Code) bool {
	return status.Code(err) == code && apierr.Reason(status.Convert(err)) == ""
}
