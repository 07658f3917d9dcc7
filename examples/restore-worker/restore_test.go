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
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

// fakeBroker gives one credential for a bucket of the test's, and notes why.
type fakeBroker struct {
	grpc.ClientConnInterface
	endpoint string
	asked    []string
}

func (f *fakeBroker) Invoke(_ context.Context, method string, request, answer any, _ ...grpc.CallOption) error {
	r := request.(*stokerv1.IssueCredentialsRequest)
	f.asked = append(f.asked, method+" "+r.GetTenant()+"/"+r.GetGrant()+" "+r.GetReason())
	answer.(*stokerv1.IssueCredentialsResponse).Credential = &stokerv1.Credential{
		AccessKeyId: "ASIA", SecretAccessKey: "secret", SessionToken: "token", ExpireTime: timestamppb.New(time.Now().Add(time.Hour)),
		Target: &stokerv1.Target{Bucket: "b", Prefix: "acme/", Region: "us-east-1", Endpoint: f.endpoint},
	}
	return nil
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
	b := &fakeBroker{endpoint: bucket(t, "acme/a", "acme/dir/", "acme/dir/b")}
	job := Job{Tenant: "acme", Grant: "read", Reason: "ticket 4711", Out: filepath.Join(t.TempDir(), "out")}
	n, err := job.Restore(t.Context(), b)
	if err != nil || n != 2 {
		t.Fatalf("%d objects, %v", n, err)
	}
	for name, want := range map[string]string{"a": "acme/a", "dir/b": "acme/dir/b"} {
		if got, err := os.ReadFile(filepath.Join(job.Out, name)); err != nil || string(got) != want {
			t.Errorf("%s has %q, %v", name, got, err)
		}
	}
	if b.asked[0] != "/stoker.v1.DelegationService/IssueCredentials acme/read ticket 4711" {
		t.Errorf("asked %q", b.asked)
	}
}

// A tenant chooses keys; none leads out of the directory.
func TestKeysStayInTheDirectory(t *testing.T) {
	for _, key := range []string{"acme/../outside", "acme//etc/passwd", "acme/a/../../outside"} {
		dir := t.TempDir()
		_, err := Job{Tenant: "acme", Out: filepath.Join(dir, "out")}.Restore(t.Context(), &fakeBroker{endpoint: bucket(t, key)})
		if err == nil || !strings.Contains(err.Error(), "no path below the directory") {
			t.Errorf("%s: %v", key, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "outside")); err == nil {
			t.Errorf("%s was written outside", key)
		}
	}
}
