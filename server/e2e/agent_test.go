package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/brokertest"
)

// standing is what "stoker-agent status -o json" prints, as far as a test looks.
type standing struct {
	Healthy bool
	Users   []struct {
		Login     string
		Connected bool
		Error     *struct{ Reason string }
		LastError *struct{ Reason string } `json:"last_error"`
		Grants    []struct {
			Name, State string
			SecondsLeft int `json:"seconds_left"`
			Renewals    int
			Error       *struct{ Reason string }
			Hook        *struct{ Event, Error string }
		}
	}
}

// service is a stoker-agent with a file for two users, against a whole broker.
type service struct {
	t       *testing.T
	dir     string
	command *exec.Cmd
}

func (s *service) tool(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(s.t.Context(), filepath.Join(programs, "stoker-agent"), args...)
	cmd.Env = append(clean(), "XDG_RUNTIME_DIR="+s.dir, "STOKER_CONFIG="+filepath.Join(s.dir, "stoker-agent.yaml"))
	return cmd
}

func (s *service) status() (code int, r standing) {
	out, err := s.tool("status", "-o", "json").Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	if exit != nil {
		code = exit.ExitCode()
	}
	must(s.t, json.Unmarshal(out, &r))
	return code, r
}

// await asks for the status until it is as wanted.
func (s *service) await(what string, done func(int, standing) bool) standing {
	s.t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(2 * time.Minute); ; {
		code, r := s.status()
		if done(code, r) {
			return r
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s: it stays %d %+v", what, code, r)
		}
		<-tick.C
	}
}

// One agent holds the grants of two users of a real broker through renewals, a
// restart of the broker, and the end of one of the users, which is none of the
// other's business.
func TestAgentOfTwoUsers(t *testing.T) {
	b := brokertest.Start(t, brokertest.Options{})
	b.Tenant("acme")
	b.Location(&stokerv1.Location{Name: "main", Bucket: "shared-bucket"})
	dir, err := os.MkdirTemp("", "agent") // sockets have short paths
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	write := func(name, text string, mode os.FileMode) {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), mode))
	}
	for login, grant := range map[string]string{"backup": "nightly", "audit": "reports"} {
		write(login, b.User("acme", login), 0o600)
		b.Grant(&stokerv1.Grant{
			Tenant: "acme", Login: login, Name: grant, Location: "main", Prefix: "acme/" + grant + "/", Access: stokerv1.Access_ACCESS_BACKUP,
		}, 16*time.Second)
	}
	brokertest.WritePair(t, filepath.Join(dir, "agent"), b.Agent("acme", "nas"))
	write("ca.pem", string(b.AuthorityPEM), 0o644)
	write("stoker-agent.yaml", `
brokers: [`+b.Addr+`]
ca: ca.pem
certificate: agent.pem
key: agent.key
listen: 127.0.0.1:0
users:
  backup@acme: {password_file: backup, grants: [nightly]}
  audit@acme: {password_file: audit, grants: [reports]}
credentials_file: credentials
hook: {command: [/bin/sh, -c, 'echo "$STOKER_GRANT $STOKER_EVENT $STOKER_REASON" >> "`+dir+`/told"']}
`, 0o600)
	s := &service{t: t, dir: dir}
	run(t, s.tool("check"))
	s.command = s.tool("run")
	s.command.Stderr = t.Output()
	out, err := s.command.StdoutPipe()
	must(t, err)
	must(t, s.command.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.Contains(lines.Text(), "FULL_URI") {
	}
	renewed := func(least int) func(int, standing) bool {
		return func(code int, r standing) bool {
			for _, u := range r.Users {
				if len(u.Grants) != 1 || u.Grants[0].Renewals < least || u.Grants[0].State != "good" {
					return false
				}
			}
			return code == 0 && len(r.Users) == 2
		}
	}
	s.await("two renewals", renewed(2))
	b.Restart()
	s.await("a renewal after a restart", renewed(4))

	_, err = stokerv1.NewUserServiceClient(b.Admin).UpdateUser(context.WithoutCancel(t.Context()), &stokerv1.UpdateUserRequest{
		User:       &stokerv1.User{Tenant: "acme", Login: "audit", Disabled: true},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"disabled"}},
	})
	must(t, err)
	// Its credential goes first, then its stream.
	r := s.await("the end of a user", func(code int, r standing) bool {
		return code == 1 && r.Users[0].Grants[0].SecondsLeft == 0 && r.Users[0].Error != nil
	})
	if u := r.Users[0]; u.Login != "audit@acme" || u.Error.Reason != "USER_DISABLED" || u.Grants[0].State != "revoked" {
		t.Errorf("the disabled user: %+v", u)
	}
	if u := r.Users[1]; !u.Connected || u.Error != nil || u.Grants[0].State != "good" || u.Grants[0].SecondsLeft == 0 {
		t.Errorf("the other: %+v", u)
	}
	s.await("the hook of the revocation", func(_ int, r standing) bool {
		hook := r.Users[0].Grants[0].Hook
		return hook != nil && hook.Event == "revocation" && hook.Error == ""
	})
	s.await("the next renewal of the other", func(_ int, now standing) bool {
		return now.Users[1].Grants[0].Renewals > r.Users[1].Grants[0].Renewals
	})
	text, err := os.ReadFile(filepath.Join(dir, "credentials"))
	must(t, err)
	if !strings.Contains(string(text), "[stoker-nightly]") || strings.Contains(string(text), "stoker-reports") {
		t.Errorf("the shared-credentials file:\n%s", text)
	}
	told, err := os.ReadFile(filepath.Join(dir, "told"))
	must(t, err)
	if !strings.Contains(string(told), "nightly renewal") || !strings.Contains(string(told), "reports renewal") ||
		!strings.Contains(string(told), "reports revocation USER_DISABLED") {
		t.Errorf("the hook was told:\n%s", told)
	}
	t.Logf("the hook was told:\n%s", told)
	must(t, s.command.Process.Signal(syscall.SIGTERM))
	for lines.Scan() { // the rest, before Wait closes the pipe
	}
	must(t, s.command.Wait())
	if text, err := os.ReadFile(filepath.Join(dir, "credentials")); err != nil || strings.Contains(string(text), "stoker-") {
		t.Errorf("at the end: %v\n%s", err, text)
	}
}
