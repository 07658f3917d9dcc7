package e2e_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/stokerd/stoker/internal/partner"
	"github.com/stokerd/stoker/internal/polling"
	"github.com/stokerd/stoker/internal/transcript"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/apierr"
	"github.com/stokerd/stoker/server/internal/brokertest"
	"github.com/stokerd/stoker/server/internal/reason"
)

const debianPython = "install Debian's python3-grpcio and protobuf-compiler"

// pythonAgent prepares the agent of docs/protocol.md in a directory, by the
// page's own commands, and gives the one that runs it.
func pythonAgent(ctx context.Context, t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	partner.LookPath(t, "protoc", debianPython)
	python := partner.LookPath(t, "/usr/bin/python3", debianPython)
	if exec.CommandContext(ctx, python, "-c", "import grpc, google.protobuf").Run() != nil {
		partner.Missing(t, "grpcio in "+python, debianPython)
	}
	root, err := filepath.Abs("../..")
	must(t, err)
	var program, commands string
	for _, b := range readPage(t, "protocol.md").blocks() {
		switch b.kind {
		case "python":
			program = b.text
		case "sh python":
			commands = b.text
		}
	}
	generate, start, ok := strings.Cut(commands, "/usr/bin/python3 ")
	if !ok || program == "" {
		t.Fatal("the page has no agent")
	}
	must(t, os.WriteFile(filepath.Join(dir, "agent.py"), []byte(program), 0o600))
	must(t, os.Symlink(filepath.Join(root, "proto"), filepath.Join(dir, "proto")))
	protoc := exec.CommandContext(ctx, "bash", "-euc", generate)
	protoc.Dir = dir
	run(t, protoc)
	cmd := exec.Command(python, strings.TrimSpace(start))
	cmd.Dir = dir
	return cmd
}

// The agent of docs/protocol.md is supplied, resumes what it holds at a broker
// that was killed without an STS call or a login, and learns why its stream
// ends.
func TestPythonAgentAsDocumented(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	work := t.TempDir()
	cmd := pythonAgent(ctx, t, work)
	d := newDaemon(t, "")
	password, certs := d.fleet(ctx, 1, time.Hour)
	brokertest.WritePair(t, filepath.Join(work, "agent"), certs[0])
	must(t, os.WriteFile(filepath.Join(work, "password"), []byte(password+"\n"), 0o600))
	out := &transcript.Transcript{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(clean(), "no_proxy=127.0.0.1", "STOKER_BROKER="+d.addr, "STOKER_CA="+filepath.Join(d.dir, "ca.pem"),
		"STOKER_CERT="+filepath.Join(work, "agent.pem"), "STOKER_KEY="+filepath.Join(work, "agent.key"),
		"STOKER_LOGIN=backup@acme", "STOKER_PASSWORD_FILE="+filepath.Join(work, "password"))
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		t.Logf("the agent said\n%s", out)
	})
	says := func(text string, times int) {
		t.Helper()
		polling.Until(ctx, t, text, func() bool { return strings.Count(out.String(), text) >= times })
	}
	says("credential nightly A", 1)
	fleet := stokerv1.NewFleetServiceClient(d.admin)
	supplied := func(also func(*stokerv1.StreamGrant) bool) func() bool {
		return func() bool {
			streams, err := fleet.ListStreams(ctx, &stokerv1.ListStreamsRequest{})
			must(t, err)
			for _, v := range streams.GetStreams() {
				for _, g := range v.GetGrants() {
					return g.GetCredentialId() != "" && also(g)
				}
			}
			return false
		}
	}
	polling.Until(ctx, t, "the acknowledgement", supplied(func(g *stokerv1.StreamGrant) bool { return g.GetAcknowledgeTime() != nil }))
	logins := d.count(t, "session.created")

	d.kill()
	d.start()
	says("connected as", 2)
	polling.Until(ctx, t, "the resumption", supplied(func(*stokerv1.StreamGrant) bool { return true }))
	if n := d.sts.Calls()["GetFederationToken"]; n != 1 {
		t.Errorf("the restart cost %d STS calls", n-1)
	}
	if n := d.count(t, "session.created"); n != logins {
		t.Errorf("the restart cost %d logins", n-logins)
	}

	_, err := stokerv1.NewGrantServiceClient(d.admin).UpdateGrant(ctx, &stokerv1.UpdateGrantRequest{
		Grant: &stokerv1.Grant{Tenant: "acme", Name: "nightly", Disabled: true}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"disabled"}},
	})
	must(t, err)
	says("revoked nightly GRANT_DISABLED", 1)
	_, err = fleet.Revoke(ctx, &stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_User{User: "backup@acme"}, Reason: "a test"})
	must(t, err)
	says("ended: PERMISSION_DENIED USER_DISABLED", 1)
}

// Of the reasons that end an agent's call, docs/protocol.md says, the codes
// tell the transient ones.
func TestCodesTellTransientReasons(t *testing.T) {
	neverAnEnd := []reason.Reason{reason.EtagMismatch, reason.GrantChanged}
	for _, row := range reason.Table {
		var byCode bool
		switch apierr.Code(row.Reason) {
		case codes.Unavailable, codes.ResourceExhausted, codes.Internal, codes.Aborted:
			byCode = true
		}
		never := row.Reason == neverAnEnd[0] || row.Reason == neverAnEnd[1]
		if byCode != row.Transient && !never {
			t.Errorf("%s is transient: %v, its code says %v", row.Reason, row.Transient, byCode)
		}
	}
}
