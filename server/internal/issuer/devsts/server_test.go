package devsts

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/secret"
)

func TestStartRefusesOtherInterfaces(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", ":0", "192.0.2.1:0", "localhost:0", "127.0.0.1", "[::]:0", "x"} {
		s, err := Start(Config{Addr: addr})
		if err == nil {
			t.Errorf("listens at %s", s.URL())
			_ = s.Close()
		}
	}
}

func TestStartRefusesATakenPort(t *testing.T) {
	f := start(t)
	if s, err := Start(Config{Addr: strings.TrimPrefix(f.URL(), "http://")}); err == nil {
		t.Errorf("listens at %s", s.URL())
		_ = s.Close()
	}
}

// TestConfigProblemsAreReportedTogether finds each of them in one error.
func TestConfigProblemsAreReportedTogether(t *testing.T) {
	user := NewUser("twice")
	_, err := New(Config{
		AccountID: "123", MinLifetime: time.Millisecond, PackedLimit: -1, IssuedLimit: -1, Seal: secret.New("short"),
		Users: []User{user, user, {Name: "a b", AccessKeyID: "AKIA1", SecretAccessKey: secret.New("x")}, {Name: "poor", AccessKeyID: "AKIA2"}, {Name: "odd", AccessKeyID: "A/B", SecretAccessKey: secret.New("x")}},
		Roles: []Role{{Name: "r"}, {Name: "r"}, {Name: "s", MaxLifetime: time.Minute}},
	})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		`account id "123"`, "min lifetime 1ms", "packed limit -1", "issued limit -1", "seal has 5 bytes",
		`user "twice": access key id`, `user name "a b"`, `user "poor" has no secret`, `access key id "A/B"`,
		`role name "r"`, `role "s": max lifetime 1m0s`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("not reported: %s\nin %v", want, err)
		}
	}
}

// TestConfigDoesNotPrintSecrets: a configuration that strays into a log.
func TestConfigDoesNotPrintSecrets(t *testing.T) {
	user := NewUser("broker")
	c := Config{Users: []User{user}, Seal: secret.New(strings.Repeat("canary", 8))}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(verb, c); strings.Contains(text, user.SecretAccessKey.Reveal()) || strings.Contains(text, "canary") {
			t.Errorf("%s prints %s", verb, text)
		}
	}
}

// TestIssuedHoldsNoSecrets: neither does what the STS remembers.
func TestIssuedHoldsNoSecrets(t *testing.T) {
	f := start(t)
	out, err := f.issue(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("%+v", f.Issued())
	if strings.Contains(text, *out.Credentials.SecretAccessKey) || strings.Contains(text, *out.Credentials.SessionToken) {
		t.Error(text)
	}
}

// TestHandlerAlone: the service needs no Server.
func TestHandlerAlone(t *testing.T) {
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", nil))
	if w.Code != 403 || !strings.Contains(w.Body.String(), "<Code>MissingAuthenticationToken</Code>") {
		t.Errorf("got %d: %s", w.Code, w.Body)
	}
}
