package e2e_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stokerd/stoker/internal/partner"
	"github.com/stokerd/stoker/internal/polling"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"google.golang.org/protobuf/encoding/protojson"
)

// grpcurl prepares a call as an agent of the tenant, with a Basic login where
// there is a password.
func (s *site) grpcurl(ctx context.Context, t *testing.T, tenant, password string, args ...string) *exec.Cmd {
	t.Helper()
	all := []string{"-cacert", s.path("ca.pem"), "-cert", s.path(tenant + ".pem"), "-key", s.path(tenant + ".key")}
	if password != "" {
		all = append(all, "-H", "authorization: Basic "+base64.StdEncoding.EncodeToString([]byte("backup@"+tenant+":"+password)))
	}
	return exec.CommandContext(ctx, partner.LookPath(t, "grpcurl", partners), append(all, args...)...)
}

func TestGrpcurl(t *testing.T) {
	s := newSite(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	password := s.passwords["alpha"]

	services := run(t, s.grpcurl(ctx, t, "alpha", "", s.Addr, "list"))
	for _, want := range []string{"stoker.v1.CredentialService", "stoker.v1.SessionService", "grpc.health.v1.Health"} {
		if !strings.Contains(services, want+"\n") {
			t.Errorf("%s is not listed:\n%s", want, services)
		}
	}
	described := run(t, s.grpcurl(ctx, t, "alpha", "", s.Addr, "describe", "stoker.v1.CredentialService"))
	if !strings.Contains(described, "rpc StreamCredentials ( stream .stoker.v1.StreamCredentialsRequest )") {
		t.Errorf("described:\n%s", described)
	}
	health := run(t, s.grpcurl(ctx, t, "alpha", "", "-d", `{"service":"stoker.v1.CredentialService"}`, s.Addr, "grpc.health.v1.Health/Check"))
	if !strings.Contains(health, "SERVING") || strings.Contains(health, "NOT_SERVING") {
		t.Errorf("health:\n%s", health)
	}

	var got stokerv1.GetCredentialsResponse
	out := run(t, s.grpcurl(ctx, t, "alpha", password, "-d", `{"grants":["nightly"]}`, s.Addr, "stoker.v1.CredentialService/GetCredentials"))
	if err := protojson.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if err := put(ctx, s.client(got.GetCredentials()[0]), "alpha/from-grpcurl"); err != nil {
		t.Errorf("S3 does not take the credential: %v", err)
	}

	refusal := fails(t, s.grpcurl(ctx, t, "alpha", "not the password", "-format-error", s.Addr, "stoker.v1.CredentialService/ListGrants"))
	if !strings.Contains(refusal, "LOGIN_REJECTED") || strings.Contains(refusal, "not the password") {
		t.Errorf("a wrong password:\n%s", refusal)
	}
	// The broker says why and hangs up, and grpcurl at times tries to write before
	// it reads that.
	polling.Until(ctx, t, "a certificate to be required", func() bool {
		out := fails(t, exec.CommandContext(ctx, partner.LookPath(t, "grpcurl", partners), "-cacert", s.path("ca.pem"), s.Addr, "list"))
		return strings.Contains(out, "certificate required")
	})
}

// grpcurl half-closes after its one message; the broker keeps pushing.
func TestGrpcurlWatches(t *testing.T) {
	s := newSite(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := s.grpcurl(ctx, t, "alpha", s.passwords["alpha"], "-d", `{"subscribe":{}}`, s.Addr, "stoker.v1.CredentialService/StreamCredentials")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	messages := json.NewDecoder(bufio.NewReader(out))
	next := func() *stokerv1.StreamCredentialsResponse {
		t.Helper()
		var raw json.RawMessage
		if err := messages.Decode(&raw); err != nil {
			t.Fatal(err)
		}
		m := &stokerv1.StreamCredentialsResponse{}
		if err := protojson.Unmarshal(raw, m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	if m := next(); m.GetWelcome().GetIdentity().GetTenant() != "alpha" {
		t.Errorf("first message %v", m)
	}
	first := next().GetCredential()
	s.change(t, "alpha", stokerv1.Access_ACCESS_MAINTAIN)
	second := next().GetCredential()
	if first == nil || second == nil || !second.GetIssueTime().AsTime().After(first.GetIssueTime().AsTime()) {
		t.Errorf("got %v and %v", first.GetId(), second.GetId())
	}
	cancel()
	_ = cmd.Wait()
}
