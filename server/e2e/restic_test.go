package e2e_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/stokerd/stoker/internal/partner"
	"github.com/stokerd/stoker/internal/polling"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/brokertest"
)

const partners = "run `make partners`, and `make test`"

// change gives the tenant's grant another access: its session policy changes,
// and the broker replaces the credentials of its streams at once.
func (s *site) change(t *testing.T, tenant string, access stokerv1.Access) {
	t.Helper()
	_, err := stokerv1.NewGrantServiceClient(s.Admin).UpdateGrant(t.Context(), &stokerv1.UpdateGrantRequest{
		Grant:      &stokerv1.Grant{Tenant: tenant, Name: "nightly", Access: access},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"access"}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// renewTwice replaces the credential of the tenant's open stream twice. In the
// end the grant is as it was.
func (s *site) renewTwice(ctx context.Context, t *testing.T, tenant string) {
	t.Helper()
	for _, access := range []stokerv1.Access{stokerv1.Access_ACCESS_MAINTAIN, stokerv1.Access_ACCESS_BACKUP} {
		before := s.issued(t, tenant)
		s.change(t, tenant, access)
		polling.Until(ctx, t, "a renewal", func() bool { return s.issued(t, tenant) > before })
	}
}

// issued counts the credentials that the audit trail has for a tenant.
func (s *site) issued(t *testing.T, tenant string) int {
	t.Helper()
	answer, err := stokerv1.NewAuditServiceClient(s.Admin).ListRecords(t.Context(), &stokerv1.ListRecordsRequest{
		Tenant: tenant, Events: []string{"credential.issued", "credential.renewed"}, PageSize: 1000,
	})
	if err != nil {
		t.Fatal(err)
	}
	return len(answer.GetRecords())
}

// restic does its whole cycle through the agent, with credentials that are
// replaced under the running process.
func TestResticThroughTheAgent(t *testing.T) {
	restic := partner.LookPath(t, "restic", partners)
	s := newSite(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()

	data := filepath.Join(s.dir, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	content := strings.Repeat("what must not be lost\n", 1000)
	if err := os.WriteFile(filepath.Join(data, "file"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	repository := "s3:" + s.s3.Endpoint + "/" + bucket + "/alpha/repo"
	exec := func(args ...string) string {
		t.Helper()
		cmd := s.agent(ctx, "alpha", append([]string{"exec", "--", restic, "-r", repository, "--no-cache"}, args...)...)
		cmd.Env = append(cmd.Env, "RESTIC_PASSWORD=of-the-repository")
		return run(t, cmd)
	}
	exec("init")

	// One agent holds its stream for the whole of a slow backup; the
	// credential is replaced twice while restic reads from its pipe.
	slow := s.agent(ctx, "alpha", "exec", "--", "sh", "-c",
		`(head -c 300000 /dev/urandom; touch "$READY"; while [ ! -e "$GO" ]; do sleep 0.1; done; head -c 300000 /dev/urandom) | "$RESTIC" -r "$REPO" --no-cache backup --stdin && "$RESTIC" -r "$REPO" --no-cache snapshots`)
	slow.Env = append(slow.Env, "RESTIC_PASSWORD=of-the-repository", "RESTIC="+restic, "REPO="+repository,
		"READY="+s.path("ready"), "GO="+s.path("go"))
	done := make(chan string, 1)
	go func() {
		out, err := slow.CombinedOutput()
		if err != nil {
			out = append(out, []byte("\n"+err.Error())...)
		}
		done <- string(out)
	}()
	polling.File(ctx, t, s.path("ready"))
	s.renewTwice(ctx, t, "alpha")
	s.write(t, "go", nil, 0o600)
	if out := <-done; !strings.Contains(out, "1 snapshots") {
		t.Fatalf("backup while credentials were renewed:\n%s", out)
	}

	exec("backup", data)
	exec("check", "--read-data")
	target := filepath.Join(s.dir, "restored")
	exec("restore", "latest", "--target", target)
	restored, err := os.ReadFile(filepath.Join(target, data, "file"))
	if err != nil || string(restored) != content {
		t.Errorf("restored %d bytes, %v", len(restored), err)
	}
	exec("unlock")
	if out := exec("snapshots"); !strings.Contains(out, "2 snapshots") {
		t.Errorf("snapshots:\n%s", out)
	}
}

// one gets one credential by the unary call.
func (s *site) one(t *testing.T, tenant string) *stokerv1.Credential {
	t.Helper()
	answer, err := stokerv1.NewCredentialServiceClient(s.Dial(s.agents[tenant])).GetCredentials(
		brokertest.Basic(t.Context(), "backup@"+tenant, s.passwords[tenant]),
		&stokerv1.GetCredentialsRequest{Grants: []string{"nightly"}, MinLife: durationpb.New(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	return answer.GetCredentials()[0]
}
