package e2e_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/stokerd/stoker/internal/polling"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/brokertest"
)

// The example restores a tenant's objects, while its credential is renewed
// under it: the first file that it writes is a pipe that nobody reads yet.
func TestRestoreWorker(t *testing.T) {
	s := newSite(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	store := s3.New(s3.Options{
		Region: s.s3.Region, BaseEndpoint: aws.String(s.s3.Endpoint), UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(s.s3.AccessKey, s.s3.SecretKey, ""),
	})
	for key, content := range map[string]string{
		"alpha/a-first": "first", "alpha/dir/second": "second", "alpha/z-large": strings.Repeat("large", 1<<20), "beta/not-yours": "x",
	} {
		if _, err := store.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String(bucket), Key: aws.String(key), Body: strings.NewReader(content)}); err != nil {
			t.Fatal(err)
		}
	}
	brokertest.WritePair(t, s.path("restorer"), s.IssueService("restorer"))
	worker := func(out, tenant string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, filepath.Join(programs, "restore-worker"),
			"--broker", s.Addr, "--ca", s.path("ca.pem"), "--cert", s.path("restorer.pem"), "--key", s.path("restorer.key"),
			"--tenant", tenant, "--grant", "nightly", "--reason", "ticket 4711", "--out", out)
		cmd.Env = clean()
		return cmd
	}
	// Its rule is for grants that restore, and the grant is for backups.
	if out := fails(t, worker(s.path("refused"), "alpha")); !strings.Contains(out, "DELEGATION_DENIED") {
		t.Errorf("a grant of another access: %s", out)
	}
	if out := fails(t, worker(s.path("refused"), "beta")); !strings.Contains(out, "DELEGATION_DENIED") {
		t.Errorf("another tenant: %s", out)
	}
	s.change(t, "alpha", stokerv1.Access_ACCESS_RESTORE)

	out := s.path("restored")
	if err := os.Mkdir(out, 0o700); err != nil {
		t.Fatal(err)
	}
	gate := filepath.Join(out, "a-first")
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := worker(out, "alpha")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	polling.Until(ctx, t, "the first credential", func() bool { return s.issued(t, "alpha") == 1 })
	// A credential that is not the present one is replaced by one under the
	// grant's new terms, in the middle of the restore.
	_, err := stokerv1.NewFleetServiceClient(s.Admin).Revoke(ctx, &stokerv1.RevokeRequest{
		Target: &stokerv1.RevokeRequest_Credential{Credential: s.lastIssued(t, "alpha").GetCredentialId()}, Reason: "a drill",
	})
	if err != nil {
		t.Fatal(err)
	}
	polling.Until(ctx, t, "another credential", func() bool { return s.issued(t, "alpha") == 2 })
	if first, err := os.ReadFile(gate); err != nil || string(first) != "first" {
		t.Errorf("the first file has %q, %v", first, err)
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(said.String(), "3 objects written") {
		t.Fatalf("%v\n%s", err, said.String())
	}
	for name, want := range map[string]int{"dir/second": len("second"), "z-large": 5 << 20} {
		if got, err := os.ReadFile(filepath.Join(out, name)); err != nil || len(got) != want {
			t.Errorf("%s has %d bytes, %v", name, len(got), err)
		}
	}
	last := s.lastIssued(t, "alpha")
	if last.GetDetail()["purpose"] != "ticket 4711" || !strings.HasPrefix(last.GetSessionName(), "stoker-ticket-4711-") {
		t.Errorf("record %v", last)
	}
}

// lastIssued is the latest issue's record of a tenant.
func (s *site) lastIssued(t *testing.T, tenant string) *stokerv1.AuditRecord {
	t.Helper()
	answer, err := stokerv1.NewAuditServiceClient(s.Admin).ListRecords(t.Context(), &stokerv1.ListRecordsRequest{
		Tenant: tenant, Events: []string{"credential.issued", "credential.renewed"}, PageSize: 1000,
	})
	if err != nil || len(answer.GetRecords()) == 0 {
		t.Fatalf("%v, %v", answer, err)
	}
	last := answer.GetRecords()[0]
	for _, r := range answer.GetRecords() {
		if r.GetTime().AsTime().After(last.GetTime().AsTime()) {
			last = r
		}
	}
	return last
}
