//go:build unix

package main

import (
	"bytes"
	"encoding/base64"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/client/clienttest"
	"github.com/stokerd/stoker/cmd/stoker-agent/internal/agent"
)

// Everything that an agent does is done once, with secrets that are known and all
// logged that can be; then what it printed, logged, answered and told its hook is
// searched for them.
func TestSecretsStayWhereTheyBelong(t *testing.T) {
	w := newWorld(t, clienttest.WithGrants("photos", "papers"))
	w.addSecond(t)
	configured(t, w, `
users:
  nightly@acme: {password_file: password, grants: [photos]}
  audit@acme: {password_file: second, grants: [papers]}
credentials_file: kept/credentials
log: {level: debug, format: json}
hook: {command: [/bin/sh, -c, 'env > "`+w.dir+`/hook.$STOKER_GRANT.$STOKER_EVENT"; tr "\0" "\n" < /dev/null; exit 1']}
`)
	noisy := []string{
		"STOKER_CONFIG=" + filepath.Join(w.dir, "stoker-agent.yaml"), "STOKER_PASSWORD=CANARY-in-the-environment",
		"GRPC_GO_LOG_SEVERITY_LEVEL=info", "GRPC_GO_LOG_VERBOSITY_LEVEL=99", "GODEBUG=http2debug=0",
	}
	r := w.start(t, noisy, "run")
	r.line(t, "/v1/credentials/papers")
	ran := func(_ int, r agent.Report) bool {
		return len(r.Users) == 2 && len(r.Users[0].Grants) == 1 && len(r.Users[1].Grants) == 1 &&
			r.Users[0].Grants[0].Hook != nil && r.Users[1].Grants[0].Hook != nil
	}
	w.wait(t, "the hooks ran", ran)

	var said bytes.Buffer
	secrets := secretsOf(w, w.broker.Push("photos", 30*time.Second), w.broker.Push("papers", 30*time.Second))
	w.broker.Problem("photos", client.Error{Reason: client.ReasonSTSThrottled, Message: "slow down"}, time.Minute)
	w.broker.Drop()
	w.wait(t, "it came back", func(_ int, r agent.Report) bool { return r.Users[0].Connected && r.Users[1].Connected })
	w.broker.SetPassword("CANARY-changed")
	w.broker.EndSessions(client.ReasonPasswordChanged)
	w.wait(t, "the old password is rejected", func(_ int, r agent.Report) bool {
		return r.Users[1].Error != nil && r.Users[1].Error.Reason == "LOGIN_REJECTED"
	})
	// credential-process prints what it is for, if there is a credential.
	w.broker.Revoke("papers", client.ReasonGrantDisabled)
	w.wait(t, "nothing is held that could be printed", func(_ int, r agent.Report) bool {
		return r.Users[0].Grants[0].State == agent.StateRevoked
	})
	for _, line := range [][]string{
		{"status"}, {"status", "-o", "json"}, {"check"}, {"whoami", "--login", "audit@acme"}, {"whoami", "--login", "nightly@acme"},
		{"credential-process", "-g", "papers"}, {"exec", "-g", "photos", "--", "true"}, {"login", "--login", "audit@acme", "--password-file", "second"},
		{"logout", "--login", "audit@acme"}, {"version"}, {"--help"}, {"run", "--help"},
	} {
		_, out, errs := w.run(t, noisy, line...)
		said.WriteString(out + errs)
	}
	r.stop(t)
	said.WriteString(r.stderr.String())
	for line := range r.lines {
		said.WriteString(line)
	}
	hooks, err := filepath.Glob(filepath.Join(w.dir, "hook.*"))
	if err != nil || len(hooks) < 2 {
		t.Fatalf("the hooks left %v, %v", hooks, err)
	}
	for _, file := range hooks {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		said.Write(text)
	}
	for name, secret := range secrets {
		if strings.Contains(said.String(), secret) {
			t.Errorf("it told the %s:\n%s", name, said.String())
		}
	}
	if !strings.Contains(said.String(), `"level":"DEBUG"`) && !strings.Contains(said.String(), `"level":"INFO"`) {
		t.Error("nothing was logged")
	}
	// On disk there are what the user made, and the endpoint's token.
	err = filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for name, secret := range secrets {
			if bytes.Contains(text, []byte(secret)) && path != w.files.Password && path != filepath.Join(w.dir, "second") {
				t.Errorf("%s has the %s", path, name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// secretsOf gives what nobody may be told, in the forms that it may be told in.
func secretsOf(w *world, held ...client.Credential) map[string]string {
	secrets := map[string]string{"marker of all passwords": "CANARY"}
	for _, c := range held {
		secrets["secret key of "+c.Grant], secrets["session token of "+c.Grant] = c.SecretAccessKey, c.SessionToken
		secrets["session token of "+c.Grant+", escaped"] = url.QueryEscape(c.SessionToken)
	}
	for _, password := range []string{w.broker.Password(), "CANARY-second", "CANARY-changed"} {
		for _, login := range []string{clienttest.Login, "audit@acme"} {
			secrets["authorization of "+login+" by "+password] = base64.StdEncoding.EncodeToString([]byte(login + ":" + password))
		}
	}
	return secrets
}
