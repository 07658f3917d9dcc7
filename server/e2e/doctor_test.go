package e2e_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/brokertest"
)

// stokerctl prepares a command of the operator.
func (s *site) stokerctl(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(programs, "stokerctl"), args...)
	cmd.Env = append(clean(), "STOKER_BROKER="+s.Addr, "STOKER_CA="+s.path("ca.pem"),
		"STOKER_CERT="+s.path("operator.pem"), "STOKER_KEY="+s.path("operator.key"))
	return cmd
}

// `stokerctl doctor` finds a working deployment on MinIO good, tries a grant on
// the real bucket, and finds what is wrong there.
func TestDoctor(t *testing.T) {
	s := newSite(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	brokertest.WritePair(t, s.path("operator"), s.IssueOperator("root"))

	good := run(t, s.stokerctl(ctx, "doctor", "--grant", "alpha/nightly"))
	t.Logf("doctor said\n%s", good)
	if strings.Contains(good, "fatal") || strings.Contains(good, "FATAL") {
		t.Errorf("it finds fault with a working deployment:\n%s", good)
	}
	for _, want := range []string{"storage", "audit trail", "account main", "grant alpha/nightly", "clocks", "your certificate"} {
		if !strings.Contains(good, want) {
			t.Errorf("it says nothing of %q:\n%s", want, good)
		}
	}
	// What it had issued is in the trail, with who asked.
	records, err := stokerv1.NewAuditServiceClient(s.Admin).ListRecords(ctx, &stokerv1.ListRecordsRequest{Events: []string{"account.tried"}})
	must(t, err)
	if n := len(records.GetRecords()); n != 1 || !strings.HasSuffix(records.GetRecords()[0].GetActor(), "/operator/root") {
		t.Errorf("the trail has %v", records)
	}

	// A grant on a bucket that is not there.
	s.Location(&stokerv1.Location{Name: "nowhere", Bucket: "no-such-bucket", Region: s.s3.Region, Endpoint: s.s3.Endpoint})
	s.Grant(&stokerv1.Grant{Tenant: "alpha", Name: "lost", Location: "nowhere", Prefix: "alpha/", Access: stokerv1.Access_ACCESS_BACKUP}, 15*time.Minute)
	bad := fails(t, s.stokerctl(ctx, "doctor", "--grant", "alpha/lost"))
	t.Logf("doctor said\n%s", bad)
	if !strings.Contains(bad, "no-such-bucket") || !strings.Contains(bad, "see what is marked fatal") {
		t.Errorf("of a bucket that is not there it says\n%s", bad)
	}
	for _, text := range []string{good, bad} {
		for _, secret := range []string{s.s3.SecretKey, s.passwords["alpha"]} {
			if strings.Contains(text, secret) {
				t.Error("it shows a secret")
			}
		}
	}
}
