package issuer

import (
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"github.com/stokerd/stoker/internal/partner"
)

const minioUser, minioSecret = "stoker-broker", "canary-of-minio-root"

// startMinIO runs a real MinIO until the test's end and gives its endpoint.
func startMinIO(t *testing.T) string {
	t.Helper()
	goBin := filepath.Join(os.Getenv("HOME"), "go", "bin")
	program := partner.LookPath(t, "minio", "go install github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c", goBin)
	address := partner.FreeAddress(t)
	// The test's context ends before its cleanups run, and kills the server.
	server := exec.CommandContext(t.Context(), program, "server", "--quiet", "--address", address, "--console-address", partner.FreeAddress(t), t.TempDir())
	server.Env = append(os.Environ(), "MINIO_ROOT_USER="+minioUser, "MINIO_ROOT_PASSWORD="+minioSecret, "MINIO_BROWSER=off", "MINIO_UPDATE=off")
	server.Stdout, server.Stderr = t.Output(), t.Output()
	server.WaitDelay = 10 * time.Second
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// It was killed, so that it did not end well is no news.
		_ = server.Wait()
	})
	awaitReady(t, minioAccount("http://"+address))
	return "http://" + address
}

func minioAccount(endpoint string) Account {
	return Account{Name: "main", Endpoint: endpoint, Method: AssumeRole, Credentials: keys(minioUser, minioSecret, "")}
}

// awaitReady issues until MinIO does, as the broker would: everything that it
// answers before is transient. It cannot tell us when it has started.
func awaitReady(t *testing.T, a Account) {
	t.Helper()
	s := open(t, a)
	deadline, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		_, err := s.Issue(deadline, request())
		if err == nil {
			return
		}
		if e, ok := errors.AsType[*Error](err); !ok || e.Kind != Transient {
			t.Fatalf("while MinIO starts: %v", err)
		}
		select {
		case <-again.C:
		case <-deadline.Done():
			t.Fatalf("MinIO did not start within a minute: %v", err)
		}
	}
}

// TestMinIO: the real thing as the account's STS, with no role and no region.
func TestMinIO(t *testing.T) {
	a := minioAccount(startMinIO(t))
	s := open(t, a)
	t.Run("Check", func(t *testing.T) {
		found(t, a, "note: this STS has no GetCallerIdentity (InvalidParameterValue)")
	})
	t.Run("Issue", func(t *testing.T) {
		r := request()
		r.Policy = strings.Replace(policy, ":::b/", ":::backups/", 1)
		c, err := s.Issue(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if life := c.Expires.Sub(c.IssuedAt); (life - 15*time.Minute).Abs() > 10*time.Second {
			t.Errorf("it lasts %s", life)
		}
		keepsToItsPrefix(t, a.Endpoint, c)
	})
	t.Run("wrong secret", func(t *testing.T) {
		wrong := a
		wrong.Credentials = keys(minioUser, ownSecret, "")
		if e := issueError(t, open(t, wrong)); e.Kind != Permanent {
			t.Errorf("got %+v", e)
		}
	})
	t.Run("unknown key", func(t *testing.T) {
		wrong := a
		wrong.Credentials = keys("nobody", ownSecret, "")
		if e := issueError(t, open(t, wrong)); e.Kind != Permanent {
			t.Errorf("got %+v", e)
		}
	})
	t.Run("malformed policy", func(t *testing.T) {
		r := request()
		r.Policy = `{"Version":"2012-10-17","Statement":[{"Effect":"Perhaps"}]}`
		if _, err := s.Issue(t.Context(), r); !isPermanent(err, "InvalidParameterValue") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("too short", func(t *testing.T) {
		short := a
		short.MinLifetime = time.Minute
		r := request()
		r.Duration = time.Minute
		if _, err := open(t, short).Issue(t.Context(), r); !isPermanent(err, "InvalidParameterValue") {
			t.Errorf("got %v", err)
		}
	})
}

func isPermanent(err error, code string) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Kind == Permanent && e.Code == code && !strings.Contains(e.Error(), "canary")
}

// keepsToItsPrefix reads inside and outside of the policy's prefix.
func keepsToItsPrefix(t *testing.T, endpoint string, c Credential) {
	t.Helper()
	with := func(p aws.CredentialsProvider) *s3.Client {
		return s3.New(s3.Options{
			Region: "us-east-1", BaseEndpoint: aws.String(endpoint), UsePathStyle: true, Credentials: p, Retryer: aws.NopRetryer{},
			HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
		})
	}
	root := with(keys(minioUser, minioSecret, ""))
	if _, err := root.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("backups")}); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"p/inside", "p2/outside"} {
		if _, err := root.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("backups"), Key: aws.String(key), Body: strings.NewReader("x")}); err != nil {
			t.Fatal(err)
		}
	}
	issued := with(keys(c.AccessKeyID, c.SecretAccessKey.Reveal(), c.SessionToken.Reveal()))
	get := func(key string) error {
		answer, err := issued.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("backups"), Key: aws.String(key)})
		if err == nil {
			_ = answer.Body.Close()
		}
		return err
	}
	if err := get("p/inside"); err != nil {
		t.Errorf("inside the prefix: %v", err)
	}
	if api, ok := errors.AsType[smithy.APIError](get("p2/outside")); !ok || api.ErrorCode() != "AccessDenied" {
		t.Errorf("outside the prefix: %v", api)
	}
}
