package server_test

import (
	"context"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/stokerd/stoker/internal/polling"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/brokertest"
	"github.com/stokerd/stoker/server/internal/reason"
)

func TestLoginsThatAreRefused(t *testing.T) {
	b := site(t, brokertest.Options{})
	acme, other := join(t, b, "acme", time.Hour), join(t, b, "other", time.Hour)
	const wrong = "not the password at all"
	gone := agent{login: "gone", password: b.User("acme", "gone"), tenant: "acme"}
	disableUser(t, b, gone, true)
	for _, c := range []struct {
		name, login, password string
		want                  reason.Reason
		// cause is what the audit trail knows beyond the answer.
		cause string
	}{
		{"a wrong password", "backup@acme", wrong, reason.LoginRejected, "wrong password"},
		{"an unknown login", "nobody@acme", wrong, reason.LoginRejected, "unknown login"},
		{"an unknown login with somebody's password", "nobody@acme", acme.password, reason.LoginRejected, "unknown login"},
		{"a disabled user", "gone@acme", gone.password, reason.UserDisabled, "right password"},
		{"a disabled user with a wrong password", "gone@acme", wrong, reason.LoginRejected, "wrong password"},
		{"another tenant's login", "backup@other", other.password, reason.TenantMismatch, "login of tenant other"},
		{"a login of no tenant", "backup@nowhere", wrong, reason.TenantMismatch, "login of tenant nowhere"},
	} {
		t.Run(c.name, func(t *testing.T) {
			// A certificate of its own: failures count per certificate.
			caller := acme.with(b, b.Certify("acme", "laptop"))
			login, _, _ := strings.Cut(c.login, "@")
			before := len(refusals(t, b, login))
			st := wantReason(t, caller.whoami(brokertest.Basic(t.Context(), c.login, c.password)), c.want)
			nothingOf(t, "the answer", st.String(), map[string]string{"password": c.password})
			recorded := refusals(t, b, login)
			if len(recorded) != before+1 {
				t.Fatalf("%d records, had %d", len(recorded), before)
			}
			last := recorded[len(recorded)-1]
			if last.GetReason() != string(c.want) || last.GetDetail()["cause"] != c.cause || last.GetAgent() != "laptop" {
				t.Errorf("record %v", last)
			}
			nothingOf(t, "the audit record", last.String(), map[string]string{"password": c.password})
		})
	}
	t.Run("told apart by nobody", func(t *testing.T) {
		caller := acme.with(b, b.Certify("acme", "laptop"))
		var answers []string
		for _, login := range []string{"backup@acme", "nobody@acme", "gone@acme"} {
			st := status.Convert(caller.whoami(brokertest.Basic(t.Context(), login, wrong)))
			p := st.Proto()
			p.Details = p.Details[:1] // ErrorInfo; the request id differs
			answers = append(answers, p.String())
		}
		if answers[0] != answers[1] || answers[0] != answers[2] {
			t.Errorf("the answers differ: %q", answers)
		}
	})
	// Neither the user nor the tenant's other agent is the worse for it.
	acme.works(t)
	other.works(t)
}

// refusals lists the refused logins of a login.
func refusals(t *testing.T, b *brokertest.Broker, login string) []*stokerv1.AuditRecord {
	t.Helper()
	got, err := stokerv1.NewAuditServiceClient(b.Admin).ListRecords(t.Context(), &stokerv1.ListRecordsRequest{
		Events: []string{"session.refused"}, Login: login, PageSize: 1000,
	})
	wantOK(t, err)
	return got.GetRecords()
}

// Guessing is slowed down for the certificate that guesses, and for no other.
func TestGuessingIsDelayedForTheGuesserAlone(t *testing.T) {
	t.Parallel() // it waits much of the time
	b := site(t, brokertest.Options{})
	acme := join(t, b, "acme", time.Hour)
	guesser := acme.with(b, b.Agent("acme", "stolen"))
	checked := 0
	// The delays grow: a later one does not end before what follows is asked.
	polling.Until(t.Context(), t, "a delay of seconds", func() bool {
		err := guesser.whoami(brokertest.Basic(t.Context(), "backup@acme", "a guess at the password"))
		if reasonOf(err) == string(reason.LoginDelayed) {
			return told(wantReason(t, err, reason.LoginDelayed)) > 3*time.Second
		}
		wantReason(t, err, reason.LoginRejected)
		if checked++; checked > 10 {
			t.Fatal("ten guesses were not delayed by seconds")
		}
		return false
	})
	// The right password does not help the guesser now, and works elsewhere.
	wantReason(t, guesser.whoami(guesser.ctx(t)), reason.LoginDelayed)
	acme.works(t)
}

// told is how long an answer tells to wait.
func told(st *status.Status) time.Duration {
	for _, d := range st.Details() {
		if wait, ok := d.(*errdetails.RetryInfo); ok {
			return wait.GetRetryDelay().AsDuration()
		}
	}
	return 0
}

func TestMalformedLogins(t *testing.T) {
	b := site(t, brokertest.Options{})
	acme := join(t, b, "acme", time.Hour)
	basic := func(text string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(text)) }
	right := basic("backup@acme:" + acme.password)
	for _, c := range []struct {
		name   string
		values []string
		want   reason.Reason
	}{
		{"none", nil, reason.LoginRequired},
		{"empty", []string{""}, reason.LoginMalformed},
		{"two of them", []string{right, right}, reason.LoginMalformed},
		{"no scheme", []string{strings.TrimPrefix(right, "Basic ")}, reason.LoginMalformed},
		{"an unknown scheme", []string{"Digest x"}, reason.LoginMalformed},
		{"a scheme alone", []string{"Basic"}, reason.LoginMalformed},
		{"a scheme and a space", []string{"Bearer "}, reason.LoginMalformed},
		{"no base64", []string{"Basic ****"}, reason.LoginMalformed},
		{"base64 without its end", []string{strings.TrimRight(basic("backup@acme:four"), "=") + "A"}, reason.LoginMalformed},
		{"no colon", []string{basic("backup@acme")}, reason.LoginMalformed},
		{"no tenant", []string{basic("backup:" + acme.password)}, reason.LoginMalformed},
		{"no login", []string{basic("@acme:" + acme.password)}, reason.LoginMalformed},
		{"no password", []string{basic("backup@acme:")}, reason.LoginMalformed},
		{"two tenants", []string{basic("backup@acme@acme:" + acme.password)}, reason.LoginMalformed},
		{"a line break", []string{basic("backup\n@acme:" + acme.password)}, reason.LoginMalformed},
		{"a null", []string{basic("backup\x00@acme:" + acme.password)}, reason.LoginMalformed},
		{"a letter that looks like another", []string{basic("b\u0430ckup@acme:" + acme.password)}, reason.LoginMalformed},
		{"no UTF-8", []string{basic("backup\xff@acme:" + acme.password)}, reason.LoginMalformed},
		{"a pattern", []string{basic("*@acme:" + acme.password)}, reason.LoginMalformed},
		{"a quote", []string{basic("backup'--@acme:" + acme.password)}, reason.LoginMalformed},
		{"a path", []string{basic("../backup@acme:" + acme.password)}, reason.LoginMalformed},
		{"a login of 65", []string{basic(strings.Repeat("b", 65) + "@acme:" + acme.password)}, reason.LoginMalformed},
		{"a login of 9,000", []string{basic(strings.Repeat("b", 9000) + "@acme:" + acme.password)}, reason.LoginMalformed},
		{"a password with a line break at its end", []string{basic("backup@acme:" + acme.password + "\n")}, reason.LoginMalformed},
		{"a token with a space", []string{"Bearer a b"}, reason.LoginMalformed},
		{"a token that is none", []string{"Bearer token"}, reason.TokenInvalid},
		{"a long token", []string{"Bearer " + strings.Repeat("a", 5000)}, reason.TokenInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := t.Context()
			for _, v := range c.values {
				ctx = metadata.AppendToOutgoingContext(ctx, "authorization", v)
			}
			st := wantReason(t, acme.whoami(ctx), c.want)
			nothingOf(t, "the answer", st.String(), map[string]string{"password": acme.password})
		})
	}
	t.Run("a login of 1 MB", func(t *testing.T) {
		// gRPC's own client knows the broker's limit and sends nothing.
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", basic(strings.Repeat("b", 1<<20)+"@acme:x"))
		if err := acme.whoami(ctx); !isCode(err, codes.Internal) {
			t.Errorf("got %v", err)
		}
	})
	// The capitals of a login do not matter; those of a password do.
	wantOK(t, acme.whoami(brokertest.Basic(t.Context(), "BackUp@ACME", acme.password)))
	acme.works(t)
}

// The calls for a password take no token, and the other way round.
func TestLoginOfTheWrongSort(t *testing.T) {
	b := site(t, brokertest.Options{})
	acme := join(t, b, "acme", time.Hour).session(t)
	sessions := stokerv1.NewSessionServiceClient(acme.conn)
	create := func(ctx context.Context) error {
		_, err := sessions.CreateSession(ctx, &stokerv1.CreateSessionRequest{})
		return err
	}
	remove := func(ctx context.Context) error {
		_, err := sessions.DeleteSession(ctx, &stokerv1.DeleteSessionRequest{})
		return err
	}
	wantReason(t, create(t.Context()), reason.LoginRequired)
	wantReason(t, create(acme.ctx(t)), reason.LoginRequired)
	wantReason(t, remove(t.Context()), reason.LoginRequired)
	wantReason(t, remove(brokertest.Basic(t.Context(), "backup@acme", acme.password)), reason.LoginRequired)
	acme.works(t)
}
