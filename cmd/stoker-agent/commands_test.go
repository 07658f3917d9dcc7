//go:build unix

package main

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/client/clienttest"
	"github.com/stokerd/stoker/internal/partner"
	"github.com/stokerd/stoker/internal/polling"
)

func TestWhoami(t *testing.T) {
	w := newWorld(t)
	code, out, errs := w.run(t, nil, "whoami")
	if code != 0 || !strings.Contains(out, "nightly@acme") || !strings.Contains(out, clienttest.AgentID) {
		t.Errorf("%d %s %s", code, out, errs)
	}
	code, out, _ = w.run(t, nil, "whoami", "--json")
	var got map[string]any
	if err := json.Unmarshal([]byte(out), &got); code != 0 || err != nil || got["tenant"] != "acme" || got["agent"] != "nas-1" {
		t.Errorf("%d %s %v", code, out, err)
	}
	// The variable works as well as the file.
	code, _, errs = w.run(t, []string{"STOKER_PASSWORD_FILE=", "STOKER_PASSWORD=" + w.broker.Password()}, "whoami")
	if code != 0 {
		t.Errorf("%d %s", code, errs)
	}
}

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	open := filepath.Join(w.dir, "open")
	if err := os.WriteFile(open, []byte("CANARY"), 0o644); err != nil {
		t.Fatal(err)
	}
	openKey := filepath.Join(w.dir, "open.key")
	key, err := os.ReadFile(w.files.Key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(openKey, key, 0o644); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(w.dir, "empty")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		env  []string
		args []string
		code int
		says []string
	}{
		"everything missing": {
			[]string{"STOKER_BROKER=", "STOKER_CERT=", "STOKER_KEY=", "STOKER_LOGIN=", "STOKER_PASSWORD_FILE="}, []string{"whoami"},
			1, []string{"--broker", "--cert", "--key", "--login"},
		},
		"wrong password":         {[]string{"STOKER_PASSWORD_FILE=", "STOKER_PASSWORD=CANARY-wrong"}, []string{"whoami"}, 1, []string{"LOGIN_REJECTED"}},
		"wrong password, watch":  {[]string{"STOKER_PASSWORD_FILE=", "STOKER_PASSWORD=CANARY-wrong"}, []string{"watch"}, 1, []string{"LOGIN_REJECTED"}},
		"wrong password, exec":   {[]string{"STOKER_PASSWORD_FILE=", "STOKER_PASSWORD=CANARY-wrong"}, []string{"exec", "-g", "photos", "--", "true"}, 125, []string{"LOGIN_REJECTED"}},
		"open password file":     {[]string{"STOKER_PASSWORD_FILE=" + open}, []string{"whoami"}, 1, []string{"chmod 600 " + open}},
		"open key":               {[]string{"STOKER_KEY=" + openKey}, []string{"whoami"}, 1, []string{"chmod 600 " + openKey}},
		"empty password file":    {[]string{"STOKER_PASSWORD_FILE=" + empty}, []string{"whoami"}, 1, []string{"is empty"}},
		"no password, no prompt": {[]string{"STOKER_PASSWORD_FILE="}, []string{"whoami"}, 1, []string{"no password", "STOKER_PASSWORD_FILE"}},
		"no such file":           {[]string{"STOKER_CERT=/nonexistent"}, []string{"whoami"}, 1, []string{"/nonexistent"}},
		"no such broker":         {[]string{"STOKER_BROKER=127.0.0.1:1"}, []string{"whoami"}, 1, []string{"connection refused"}},
		"no such grant":          {nil, []string{"exec", "-g", "nothing", "--", "true"}, 125, []string{"GRANT_UNKNOWN"}},
		"no command":             {nil, []string{"exec"}, 2, []string{"command"}},
		"unknown flag":           {nil, []string{"whoami", "--password", "CANARY-x"}, 2, []string{"--password"}},
		"command not found":      {nil, []string{"exec", "--", "stoker-no-such-command"}, 127, []string{"not found"}},
		"open to all":            {nil, []string{"run", "--listen", "0.0.0.0:0"}, 1, []string{"loopback alone"}},
		"two on one profile": {
			nil, []string{"run", "-g", "photos,videos", "--credentials-file", "c", "--profile", "photos=p", "--profile", "videos=p"},
			1, []string{"both want it"},
		},
		"profiles for no file": {nil, []string{"run", "--profile", "photos=p"}, 1, []string{"--credentials-file"}},
		"a profile too much":   {nil, []string{"run", "-g", "photos", "--credentials-file", "c", "--profile", "videos=p"}, 1, []string{"videos is not held"}},
		"profiles of nothing":  {nil, []string{"run", "--credentials-file", "c"}, 1, []string{"name the grants"}},
		"neither agent nor broker": {
			[]string{"STOKER_BROKER="}, []string{"credential-process"}, 1, []string{"no agent is running"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := w.run(t, c.env, c.args...)
			if code != c.code || out != "" {
				t.Errorf("exit code %d, want %d; it prints %q", code, c.code, out)
			}
			for _, says := range c.says {
				if !strings.Contains(errs, says) {
					t.Errorf("%q does not say %q", errs, says)
				}
			}
		})
	}
}

func TestWatch(t *testing.T) {
	w := newWorld(t)
	r := w.start(t, nil, "watch")
	r.line(t, "connected to "+w.broker.Address()+" as nightly@acme from agent nas-1")
	first := r.line(t, "credential photos ASIA")
	pushed := w.broker.Push("photos", time.Hour)
	second := r.line(t, pushed.AccessKeyID)
	w.broker.Problem("photos", client.Error{Reason: client.ReasonSTSThrottled, Message: "slow down"}, time.Minute)
	r.line(t, "problem with photos: STS_THROTTLED")
	w.broker.Revoke("photos", client.ReasonGrantDisabled)
	r.line(t, "revoked photos: GRANT_DISABLED")
	disabled := &client.Error{Reason: client.ReasonUserDisabled, Message: "ask the provider"}
	w.broker.RefuseStreams(disabled)
	w.broker.EndStreams(disabled)
	r.line(t, "USER_DISABLED") // and it goes on
	r.stop(t)
	for _, line := range []string{first, second} {
		if strings.Contains(line, pushed.SecretAccessKey) || strings.Contains(line, pushed.SessionToken) {
			t.Errorf("a secret is shown: %s", line)
		}
	}
}

func TestWatchJSON(t *testing.T) {
	for _, show := range []bool{false, true} {
		w := newWorld(t)
		args := []string{"watch", "--json"}
		if show {
			args = append(args, "--show-secrets")
		}
		r := w.start(t, nil, args...)
		r.line(t, `"event":"connected"`)
		pushed := w.broker.Push("photos", time.Hour)
		var got struct {
			Event, Grant string
			Credential   struct {
				AccessKeyID     string `json:"access_key_id"`
				SecretAccessKey string `json:"secret_access_key"`
				SessionToken    string `json:"session_token"`
				Target          client.Target
			}
		}
		if err := json.Unmarshal([]byte(r.line(t, pushed.AccessKeyID)), &got); err != nil {
			t.Fatal(err)
		}
		w.broker.Revoke("photos", client.ReasonGrantDisabled)
		r.line(t, `"reason":"GRANT_DISABLED"`)
		r.stop(t)
		want := [2]string{"REDACTED", "REDACTED"}
		if show {
			want = [2]string{pushed.SecretAccessKey, pushed.SessionToken}
		}
		if got.Event != "credential" || got.Grant != "photos" || got.Credential.Target.Bucket != "backups" ||
			[2]string{got.Credential.SecretAccessKey, got.Credential.SessionToken} != want {
			t.Errorf("secrets %v: %+v", show, got)
		}
	}
}

func TestWatchShowSecrets(t *testing.T) {
	w := newWorld(t)
	r := w.start(t, nil, "watch", "--show-secrets")
	r.line(t, "connected")
	pushed := w.broker.Push("photos", time.Hour)
	line := r.line(t, pushed.AccessKeyID)
	r.stop(t)
	if !strings.Contains(line, pushed.SecretAccessKey) || !strings.Contains(line, pushed.SessionToken) {
		t.Errorf("got %s", line)
	}
}

func TestExec(t *testing.T) {
	w := newWorld(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := w.start(t, nil, "exec", "--", self, "ask")
	ask := func() string {
		t.Helper()
		if _, err := io.WriteString(r.stdin, "\n"); err != nil {
			t.Fatal(err)
		}
		return r.line(t, "")
	}
	// until asks again until the answer is the wanted one: a push takes a moment.
	until := func(contains string) {
		t.Helper()
		polling.Until(t.Context(), t, "an answer with "+contains, func() bool { return strings.Contains(ask(), contains) })
	}
	if first := ask(); !strings.HasPrefix(first, "200 ") {
		t.Errorf("at first: %s", first)
	}
	until(w.broker.Push("photos", time.Hour).SecretAccessKey)
	w.broker.Revoke("photos", client.ReasonGrantDisabled)
	until(`403 {"code":"GRANT_DISABLED"`)
	last := w.broker.Push("photos", time.Hour)
	until(last.SecretAccessKey)
	w.broker.Stop()
	until(last.SecretAccessKey)
	if err := r.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	for range r.lines {
	}
	if err := r.command.Wait(); err != nil {
		t.Errorf("%v: %s", err, r.stderr.String())
	}
}

func TestExecCode(t *testing.T) {
	w := newWorld(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if code, _, errs := w.run(t, nil, "exec", "-g", "photos", "--", self, "exit"); code != 7 {
		t.Errorf("exit code %d: %s", code, errs)
	}
}

func TestExecEnvironment(t *testing.T) {
	w := newWorld(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(w.dir, "config")
	if err := os.WriteFile(config, []byte("[default]\nrole_arn = x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	own := []string{"STOKER_PASSWORD_FILE=", "STOKER_PASSWORD=" + w.broker.Password(), "AWS_ACCESS_KEY_ID=own", "AWS_PROFILE=own", "AWS_CONFIG_FILE=" + config}
	code, out, errs := w.run(t, own, "exec", "--", self, "env")
	if code != 0 || strings.Contains(out, "STOKER_") || strings.Contains(out, "=own") || strings.Contains(out, "AWS_ACCESS_KEY_ID") {
		t.Errorf("%d %s", code, out)
	}
	for _, want := range []string{"AWS_CONTAINER_CREDENTIALS_FULL_URI=http://127.0.0.1:", "/v1/credentials/photos\n", "AWS_CONTAINER_AUTHORIZATION_TOKEN=", "AWS_REGION=eu-central-1\n", "AWS_DEFAULT_REGION=eu-central-1\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("it lacks %q:\n%s", want, out)
		}
	}
	if !strings.Contains(errs, "role_arn") {
		t.Errorf("no warning of the default profile: %s", errs)
	}
	code, out, errs = w.run(t, own, "exec", "--env", "--", self, "env")
	if code != 0 || !regexp.MustCompile(`AWS_ACCESS_KEY_ID=ASIA\w+\n`).MatchString(out) || !strings.Contains(out, "AWS_SESSION_TOKEN=") || strings.Contains(out, "AWS_CONTAINER") {
		t.Errorf("static: %d %s", code, out)
	}
	if !strings.Contains(errs, "static") || !strings.Contains(errs, "expires=") {
		t.Errorf("no warning: %s", errs)
	}
}

func TestExecWhichGrant(t *testing.T) {
	w := newWorld(t, clienttest.WithGrants("photos", "videos"))
	if code, _, errs := w.run(t, nil, "exec", "--", "true"); code != 125 || !strings.Contains(errs, "photos, videos") {
		t.Errorf("%d %s", code, errs)
	}
	none := newWorld(t, clienttest.WithGrants())
	if code, _, errs := none.run(t, nil, "exec", "--", "true"); code != 125 || !strings.Contains(errs, "no grant") {
		t.Errorf("%d %s", code, errs)
	}
}

func TestCredentialProcess(t *testing.T) {
	w := newWorld(t)
	for _, args := range [][]string{{"credential-process"}, {"credential-process", "--grant", "photos"}} {
		code, out, errs := w.run(t, nil, args...)
		var got map[string]any
		if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 || got["Version"] != 1.0 || got["Expiration"] == "" || len(got) != 5 {
			t.Errorf("%v: %d %s %s", args, code, out, errs)
		}
	}
	if code, out, errs := w.run(t, nil, "credential-process", "--grant", "nothing"); code != 1 || out != "" || !strings.Contains(errs, "GRANT_UNKNOWN") {
		t.Errorf("an unknown grant: %d %s %s", code, out, errs)
	}
}

func TestRun(t *testing.T) {
	w := newWorld(t)
	shared := filepath.Join(w.dir, ".aws", "credentials")
	listen := partner.FreeAddress(t)
	args := []string{"run", "--grant", "photos", "--listen", listen, "--credentials-file", shared}
	r := w.start(t, nil, args...)
	url := strings.TrimPrefix(r.line(t, "FULL_URI"), "export AWS_CONTAINER_CREDENTIALS_FULL_URI=")
	if url != "http://"+listen+"/v1/credentials/photos" {
		t.Errorf("it says %s", url)
	}
	if line := r.line(t, "TOKEN_FILE"); line != "export AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE="+w.place("token") {
		t.Errorf("it says %s", line)
	}
	r.line(t, "$(cat "+w.place("token")+")")
	token, err := os.ReadFile(w.place("token"))
	if err != nil || strings.ContainsAny(string(token), "\r\n") {
		t.Errorf("token file: %q, %v", token, err)
	}
	if info, err := os.Stat(w.place("token")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("token file: %v, %v", info.Mode(), err)
	}
	if err := w.broker.Await(t.Context(), func(b *clienttest.Broker) bool { return len(b.Acknowledged()) == 1 }); err != nil {
		t.Fatal(err)
	}
	if status, body, err := askEndpoint(url, string(token)); status != 200 || err != nil {
		t.Errorf("%d %s %v", status, body, err)
	}
	if status, body, err := askEndpoint(url, "wrong"); status != 401 || err != nil {
		t.Errorf("%d %s %v", status, body, err)
	}
	t.Run("credential-process asks it", func(t *testing.T) {
		logins := w.broker.Logins()
		code, out, errs := w.run(t, []string{"STOKER_BROKER=", "STOKER_PASSWORD_FILE="}, "credential-process", "--grant", "photos")
		if code != 0 || !strings.Contains(out, `"Version":1`) || w.broker.Logins() != logins {
			t.Errorf("%d %s %s", code, out, errs)
		}
	})
	t.Run("a second one is refused", func(t *testing.T) {
		if code, _, errs := w.run(t, nil, args...); code != 1 || !strings.Contains(errs, "another agent") {
			t.Errorf("%d %s", code, errs)
		}
	})
	w.broker.Revoke("photos", client.ReasonGrantDisabled)
	polling.Until(t.Context(), t, "the revocation", func() bool {
		status, body, err := askEndpoint(url, string(token))
		return err == nil && status == 403 && strings.Contains(body, "GRANT_DISABLED")
	})
	if code, out, errs := w.run(t, nil, "credential-process", "--grant", "photos"); code != 1 || out != "" || !strings.Contains(errs, "GRANT_DISABLED") {
		t.Errorf("credential-process of a revoked grant: %d %s %s", code, out, errs)
	}
	w.broker.Push("photos", time.Hour)
	polling.Until(t.Context(), t, "a profile in the shared-credentials file", func() bool {
		text, err := os.ReadFile(shared)
		return err == nil && strings.Contains(string(text), "[stoker-photos]")
	})
	r.stop(t)
	if text, err := os.ReadFile(shared); err != nil || strings.Contains(string(text), "stoker") {
		t.Errorf("the profile outlives the agent: %s, %v", text, err)
	}
	again := w.start(t, nil, args...)
	again.line(t, "FULL_URI")
	if kept, err := os.ReadFile(w.place("token")); err != nil || string(kept) != string(token) {
		t.Errorf("another token after a restart: %v", err)
	}
	again.stop(t)
}

// TestRunSurvives: the agent starts without a broker, and without a right
// password, and finds both when they come.
func TestRunSurvives(t *testing.T) {
	w := newWorld(t)
	w.broker.Stop()
	r := w.start(t, nil, "run", "--listen", partner.FreeAddress(t), "--log-format", "json")
	url := strings.TrimPrefix(r.line(t, "FULL_URI"), "export AWS_CONTAINER_CREDENTIALS_FULL_URI=")
	token, err := os.ReadFile(w.place("token"))
	if err != nil {
		t.Fatal(err)
	}
	if status, body, err := askEndpoint(url, string(token)); status != 503 || err != nil || !strings.Contains(body, "NO_CREDENTIAL_YET") {
		t.Errorf("%d %s %v", status, body, err)
	}
	w.broker.Start()
	polling.Until(t.Context(), t, "the agent to find the broker", func() bool {
		status, _, err := askEndpoint(url, string(token))
		return err == nil && status == 200
	})
	r.stop(t)
	for line := range strings.Lines(r.stderr.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
	}
}

func TestVersion(t *testing.T) {
	w := newWorld(t)
	if code, out, _ := w.run(t, nil, "version"); code != 0 || !strings.HasPrefix(out, "stoker-agent ") {
		t.Errorf("%d %s", code, out)
	}
}
