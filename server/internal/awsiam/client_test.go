package awsiam_test

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"go.uber.org/goleak"

	"github.com/stokerd/stoker/server/internal/awsiam"
	"github.com/stokerd/stoker/server/internal/issuer/devsts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A call that failed, or was sent elsewhere, may have been carried out.
func TestCallsOnce(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"in trouble": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		"elsewhere": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var calls atomic.Int32
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				calls.Add(1)
				answer(w, r)
			}))
			defer server.Close()
			client := awsiam.New(awsiam.Config{Region: "us-east-1", Endpoint: server.URL, Keys: devsts.NewUser("stoker")})
			defer client.Close()
			if _, err := client.CreateAccessKey(t.Context(), &iam.CreateAccessKeyInput{}); err == nil {
				t.Error("no error")
			}
			if n := calls.Load(); n != 1 {
				t.Errorf("%d calls", n)
			}
		})
	}
}

func TestName(t *testing.T) {
	for resource, want := range map[string]string{
		"user/stoker":            "stoker",
		"user/backup/eu/stoker":  "stoker",
		"user/":                  "",
		"user/backup/":           "",
		"user":                   "",
		"users/stoker":           "",
		"role/stoker":            "",
		"assumed-role/user/name": "",
		"root":                   "",
		"":                       "",
	} {
		name, ok := awsiam.Name("user", arn.ARN{Resource: resource})
		if ok != (want != "") || ok && name != want {
			t.Errorf("%q: %q, %v", resource, name, ok)
		}
	}
	if name, ok := awsiam.Name("role", arn.ARN{Resource: "role/service/backup"}); !ok || name != "backup" {
		t.Errorf("a role: %q, %v", name, ok)
	}
}
