//go:build unix

package delivery

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stokerd/stoker/internal/partner"
)

// debianAWS is where Debian installs the AWS CLI; another may come first on
// PATH.
const debianAWS = "/usr/bin/aws"

// TestIMDSAWSCLI runs the AWS CLI with nothing but the service's address, against
// an S3 that tells which keys it was asked with.
func TestIMDSAWSCLI(t *testing.T) {
	aws := partner.LookPath(t, debianAWS, "install Debian's awscli")
	c := credentialOf("photos")
	m, _ := listenIMDS(t, newShelf(c), "photos")
	asked := make(chan http.Header, 10)
	s3 := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Header
		_, _ = w.Write([]byte(`<ListAllMyBucketsResult><Buckets><Bucket><Name>backups</Name><CreationDate>2026-11-23T12:00:00.000Z</CreationDate></Bucket></Buckets></ListAllMyBucketsResult>`))
	}))
	defer s3.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, aws, "--endpoint-url", s3.URL, "s3", "ls")
	command.Env = append([]string{"HOME=" + t.TempDir(), "PATH=/usr/bin:/bin", "AWS_REGION=eu-central-1"}, m.Variables()...)
	// By itself it asks once, and for a second.
	command.Env = append(command.Env, "AWS_METADATA_SERVICE_TIMEOUT=20", "AWS_METADATA_SERVICE_NUM_ATTEMPTS=3")
	out, err := command.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "backups") {
		t.Fatalf("%v: %s", err, out)
	}
	header := <-asked
	if !strings.Contains(header.Get("Authorization"), "Credential="+c.AccessKeyID+"/") || header.Get("X-Amz-Security-Token") != c.SessionToken {
		t.Errorf("it was asked with %v", header)
	}
}
