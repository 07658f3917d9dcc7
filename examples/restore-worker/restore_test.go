package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/stokerd/stoker/client"
)

// supply has one credential for a bucket of the test's.
type supply struct{ endpoint string }

func (s supply) Wait(context.Context, ...string) error { return nil }

func (s supply) Credential(string) (client.Credential, error) {
	return client.Credential{Target: client.Target{Bucket: "b", Prefix: "acme/", Region: "us-east-1", Endpoint: s.endpoint}}, nil
}

func (s supply) CredentialsProvider(string) aws.CredentialsProvider {
	return credentials.NewStaticCredentialsProvider("ASIA", "secret", "token")
}

// bucket serves a listing of these keys, and their names as their contents.
func bucket(t *testing.T, keys ...string) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Amz-Security-Token") != "token" {
			t.Error("a call without the credential")
		}
		if r.URL.Query().Get("list-type") != "2" {
			_, _ = fmt.Fprint(w, strings.TrimPrefix(r.URL.Path, "/b/"))
			return
		}
		if r.URL.Query().Get("prefix") != "acme/" {
			t.Errorf("listed %q", r.URL.Query().Get("prefix"))
		}
		_, _ = fmt.Fprint(w, "<ListBucketResult>")
		for _, k := range keys {
			_, _ = fmt.Fprintf(w, "<Contents><Key>%s</Key></Contents>", k)
		}
		_, _ = fmt.Fprint(w, "</ListBucketResult>")
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestRestore(t *testing.T) {
	job := Job{Out: filepath.Join(t.TempDir(), "out")}
	n, err := job.Restore(t.Context(), supply{bucket(t, "acme/a", "acme/dir/", "acme/dir/b")})
	if err != nil || n != 2 {
		t.Fatalf("%d objects, %v", n, err)
	}
	for name, want := range map[string]string{"a": "acme/a", "dir/b": "acme/dir/b"} {
		if got, err := os.ReadFile(filepath.Join(job.Out, name)); err != nil || string(got) != want {
			t.Errorf("%s has %q, %v", name, got, err)
		}
	}
}

// A tenant chooses keys; none leads out of the directory.
func TestKeysStayInTheDirectory(t *testing.T) {
	for _, key := range []string{"acme/../outside", "acme//etc/passwd", "acme/a/../../outside"} {
		dir := t.TempDir()
		_, err := Job{Out: filepath.Join(dir, "out")}.Restore(t.Context(), supply{bucket(t, key)})
		if err == nil || !strings.Contains(err.Error(), "no path below the directory") {
			t.Errorf("%s: %v", key, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "outside")); err == nil {
			t.Errorf("%s was written outside", key)
		}
	}
}
