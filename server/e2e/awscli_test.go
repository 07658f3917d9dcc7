package e2e_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stokerd/stoker/internal/partner"
	"github.com/stokerd/stoker/internal/polling"
)

// debianAWS is where Debian installs the AWS CLI; another may come first on
// PATH.
const debianAWS = "/usr/bin/aws"

func TestAWSCLIThroughTheAgent(t *testing.T) {
	aws := partner.LookPath(t, debianAWS, "install Debian's awscli")
	s := newSite(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	s.write(t, "file", []byte("from the AWS CLI"), 0o600)

	script := `set -e
aws="$1 --endpoint-url $2"
$aws s3 cp "$3" s3://shared/alpha/file
$aws s3 ls s3://shared/alpha/
touch "$4.ready"; while [ ! -e "$4.go" ]; do sleep 0.1; done
$aws s3 cp s3://shared/alpha/file -
if $aws s3 ls s3://shared/beta/; then exit 3; fi
if $aws s3 cp "$3" s3://shared/beta/file; then exit 4; fi
if $aws s3 rm s3://shared/alpha/file; then exit 5; fi
`
	cmd := s.agent(ctx, "alpha", "exec", "--", "sh", "-c", script, "sh", aws, s.s3.Endpoint, s.path("file"), s.path("aws"))
	done := make(chan struct{})
	var out []byte
	var err error
	go func() {
		defer close(done)
		out, err = cmd.CombinedOutput()
	}()
	polling.File(ctx, t, s.path("aws.ready"))
	s.renewTwice(ctx, t, "alpha")
	s.write(t, "aws.go", nil, 0o600)
	<-done
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "from the AWS CLI") || strings.Count(string(out), "AccessDenied") != 3 {
		t.Errorf("output:\n%s", out)
	}
}
