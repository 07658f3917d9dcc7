//go:build unix

package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/client/clienttest"
	"github.com/stokerd/stoker/cmd/stoker-agent/internal/agent"
)

// configured takes the flags out of a world's environment and writes a file for
// them, with more in it.
func configured(t *testing.T, w *world, more string) (file string) {
	t.Helper()
	w.env = slices.DeleteFunc(w.env, func(entry string) bool { return strings.HasPrefix(entry, "STOKER_") })
	return configure(t, w.broker, w.dir, more)
}

// statusOf asks the running agent.
func (w *world) statusOf(t *testing.T, args ...string) (int, agent.Report) {
	t.Helper()
	code, out, errs := w.run(t, nil, append([]string{"status", "-o", "json"}, args...)...)
	var r agent.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("status answers %d %q %q", code, out, errs)
	}
	return code, r
}

// wait asks for the status until it is as wanted.
func (w *world) wait(t *testing.T, what string, done func(int, agent.Report) bool) agent.Report {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		code, r := w.statusOf(t)
		if done(code, r) {
			return r
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: the status stays %d %+v", what, code, r)
		}
	}
}

// One agent, two users, three grants, a file, a hook: all from one file.
func TestRunFile(t *testing.T) {
	w := newWorld(t, clienttest.WithGrants("photos", "videos", "papers"))
	w.addSecond(t)
	file := configured(t, w, `
users:
  nightly@acme: {password_file: password, grants: [photos, videos]}
  audit@acme: {password_credential: second, grants: [papers]}
credentials_file: aws/credentials
profiles: {papers: work}
hook:
  command: [/bin/sh, -c, 'env > "`+w.dir+`/hook.$STOKER_GRANT.$STOKER_EVENT.new"; cp "`+w.dir+`/aws/credentials" "`+w.dir+`/hook.$STOKER_GRANT.seen"; mv "`+w.dir+`/hook.$STOKER_GRANT.$STOKER_EVENT.new" "`+w.dir+`/hook.$STOKER_GRANT.$STOKER_EVENT"']
`)
	r := w.start(t, []string{"CREDENTIALS_DIRECTORY=" + w.dir, "STOKER_PASSWORD=CANARY-of-nobody", "EXTRA=kept"}, "run", "--config", file)
	uri := r.line(t, "/v1/credentials/papers")
	uri = strings.TrimPrefix(strings.TrimPrefix(uri, "export AWS_CONTAINER_CREDENTIALS_FULL_URI="), "'")
	report := w.wait(t, "all hooks ran", func(code int, r agent.Report) bool {
		n := 0
		for _, u := range r.Users {
			for _, g := range u.Grants {
				if g.Hook != nil && g.Hook.Error == "" {
					n++
				}
			}
		}
		return code == 0 && n == 3
	})
	if len(report.Users) != 2 || report.Users[0].Login != "audit@acme" || len(report.Users[1].Grants) != 2 || !report.Users[0].Connected ||
		report.Users[0].Agent != "nas-1" || report.Users[0].Broker != w.broker.Address() || report.ConfigFile != file {
		t.Errorf("the status: %+v", report)
	}
	g := report.Users[0].Grants[0]
	if g.Name != "papers" || g.State != agent.StateGood || g.SecondsLeft < 3500 || g.SecondsLeft > 3600 || g.Profile != "work" ||
		g.Renewed.IsZero() || g.Renewals != 1 || !strings.HasPrefix(g.AccessKeyID, "ASIA") || g.Expires.IsZero() {
		t.Errorf("the grant: %+v", g)
	}
	// The tool of one grant gets that, whichever user it is held for.
	token, err := os.ReadFile(w.place("token"))
	if err != nil {
		t.Fatal(err)
	}
	status, body, err := askEndpoint(uri, string(token))
	if err != nil || status != 200 || !strings.Contains(body, g.AccessKeyID) {
		t.Errorf("the endpoint: %d %s %v", status, body, err)
	}
	// The hook saw the grant and no secret, and the file was written before it ran.
	env, err := os.ReadFile(filepath.Join(w.dir, "hook.papers.renewal"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"STOKER_EVENT=renewal", "STOKER_GRANT=papers", "STOKER_LOGIN=audit@acme", "STOKER_PROFILE=work", "EXTRA=kept",
		"STOKER_EXPIRES=" + g.Expires.Format(time.RFC3339), "STOKER_SOCKET=" + w.place("agent.sock"),
	} {
		if !strings.Contains(string(env), line+"\n") {
			t.Errorf("the hook's environment has no %s:\n%s", line, env)
		}
	}
	if strings.Contains(string(env), "CANARY") || strings.Contains(string(env), "CREDENTIALS_DIRECTORY") {
		t.Errorf("the hook's environment has too much:\n%s", env)
	}
	seen, err := os.ReadFile(filepath.Join(w.dir, "hook.papers.seen"))
	if err != nil || !strings.Contains(string(seen), g.AccessKeyID) || !strings.Contains(string(seen), "[work]") {
		t.Errorf("the hook ran before the file was written: %v\n%s", err, seen)
	}
	// A revocation: the file first, then the hook.
	w.broker.Revoke("papers", client.ReasonGrantDisabled)
	report = w.wait(t, "the revocation's hook ran", func(_ int, r agent.Report) bool {
		g := r.Users[0].Grants[0]
		return g.Hook != nil && g.Hook.Event == "revocation"
	})
	if g := report.Users[0].Grants[0]; g.State != agent.StateRevoked || g.Error == nil || g.Error.Reason != "GRANT_DISABLED" || report.Healthy {
		t.Errorf("after the revocation: %+v", g)
	}
	env, err = os.ReadFile(filepath.Join(w.dir, "hook.papers.revocation"))
	if err != nil || !strings.Contains(string(env), "STOKER_REASON=GRANT_DISABLED\n") || strings.Contains(string(env), "STOKER_EXPIRES") {
		t.Errorf("the hook of the revocation: %v\n%s", err, env)
	}
	if seen, err := os.ReadFile(filepath.Join(w.dir, "hook.papers.seen")); err != nil || strings.Contains(string(seen), "[work]") {
		t.Errorf("the hook ran before the profile was gone: %v\n%s", err, seen)
	}
	r.stop(t)
	if rest, err := os.ReadFile(filepath.Join(w.dir, "aws", "credentials")); err != nil || strings.Contains(string(rest), "ASIA") {
		t.Errorf("the file at the end: %v\n%s", err, rest)
	}
}

func TestStatus(t *testing.T) {
	w := newWorld(t)
	code, out, errs := w.run(t, nil, "status")
	if code != exitNoAgent || out != "" || !strings.Contains(errs, "no agent is running") || !strings.Contains(errs, "stoker-agent run") {
		t.Errorf("without an agent: %d %q %q", code, out, errs)
	}
	r := w.start(t, nil, "run", "--listen", "127.0.0.1:0")
	r.line(t, "FULL_URI")
	w.wait(t, "it is well", func(code int, r agent.Report) bool { return code == 0 && r.Healthy })
	code, out, _ = w.run(t, nil, "status")
	for _, says := range []string{"healthy", "connected to " + w.broker.Address() + " since 2", "nas-1", "nightly@acme", "photos", "good", "s3://"} {
		if !strings.Contains(out, says) {
			t.Errorf("%d, it does not say %q:\n%s", code, says, out)
		}
	}
	// A problem that passes makes nobody get up; one that does not, does.
	w.broker.Problem("photos", client.Error{Reason: client.ReasonSTSThrottled, Message: "slow down"}, time.Minute)
	report := w.wait(t, "the problem", func(_ int, r agent.Report) bool { return r.Users[0].Grants[0].Error != nil })
	if g := report.Users[0].Grants[0]; !report.Healthy || g.State != agent.StateAtRisk || g.Error.Reason != "STS_THROTTLED" {
		t.Errorf("throttled: %+v", report)
	}
	w.broker.Push("photos", time.Hour)
	report = w.wait(t, "the next credential", func(_ int, r agent.Report) bool { return r.Users[0].Grants[0].Error == nil })
	if g := report.Users[0].Grants[0]; g.LastError == nil || g.LastError.Reason != "STS_THROTTLED" || g.LastError.Time.IsZero() || g.Renewals != 2 {
		t.Errorf("the last error is forgotten: %+v", g)
	}
	disabled := &client.Error{Reason: client.ReasonUserDisabled, Message: "ask the provider"}
	w.broker.RefuseStreams(disabled)
	w.broker.EndStreams(disabled)
	report = w.wait(t, "the end", func(_ int, r agent.Report) bool { return !r.Users[0].Connected && r.Users[0].Error != nil })
	code, out, _ = w.run(t, nil, "status")
	if report.Healthy || code != exitUnhealthy || !strings.Contains(out, "NOT HEALTHY") || !strings.Contains(out, "! nightly@acme: USER_DISABLED") {
		t.Errorf("disabled: %d %s", code, out)
	}
	if report.Users[0].RetryTime.IsZero() || report.Users[0].Since.IsZero() {
		t.Errorf("disabled: %+v", report.Users[0])
	}
	r.stop(t)
	if code, _, _ := w.run(t, nil, "status"); code != exitNoAgent {
		t.Errorf("after the end: %d", code)
	}
}

// A failing hook is seen in the status and in the log, and stops nothing.
func TestHookFails(t *testing.T) {
	w := newWorld(t)
	configured(t, w, "users: {nightly@acme: {password_file: password}}\nhook: {command: [/bin/sh, -c, exit 3]}\n")
	r := w.start(t, []string{"STOKER_CONFIG=" + filepath.Join(w.dir, "stoker-agent.yaml")}, "run")
	r.line(t, "FULL_URI")
	report := w.wait(t, "the hook failed", func(_ int, r agent.Report) bool {
		return len(r.Users[0].Grants) == 1 && r.Users[0].Grants[0].Hook != nil
	})
	if report.Healthy || report.Users[0].Grants[0].Hook.Error != "exit code 3" || report.Users[0].Grants[0].State != agent.StateGood {
		t.Errorf("%+v", report)
	}
	r.stop(t)
	if !strings.Contains(r.stderr.String(), "the hook failed") {
		t.Errorf("the log: %s", r.stderr.String())
	}
}

// A shared-credentials file that cannot be written is seen in the status, and
// renewals do not reach the hook before it is.
func TestFileTrouble(t *testing.T) {
	w := newWorld(t)
	theirs := filepath.Join(w.dir, "credentials")
	if err := os.WriteFile(theirs, []byte("[stoker-photos]\naws_access_key_id = theirs\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	configured(t, w, "users: {nightly@acme: {password_file: password, grants: [photos]}}\ncredentials_file: credentials\nhook: {command: [/bin/true]}\n")
	r := w.start(t, []string{"STOKER_CONFIG=" + filepath.Join(w.dir, "stoker-agent.yaml")}, "run")
	r.line(t, "FULL_URI")
	report := w.wait(t, "the trouble is told", func(code int, r agent.Report) bool {
		return code == exitUnhealthy && r.CredentialsFile != nil && r.CredentialsFile.Error != nil && r.Users[0].Grants[0].State == agent.StateGood
	})
	if !strings.Contains(report.Complaints[0], theirs) || !strings.Contains(report.Complaints[0], "not stoker-agent's") || report.Users[0].Grants[0].Hook != nil {
		t.Errorf("%+v", report)
	}
	r.stop(t)
	if text, err := os.ReadFile(theirs); err != nil || !strings.Contains(string(text), "= theirs") {
		t.Errorf("their profile: %v %s", err, text)
	}
}

// A file in one of the usual places is found by all commands.
func TestConfigPlaces(t *testing.T) {
	w := newWorld(t, clienttest.WithGrants("photos", "papers"))
	w.addSecond(t)
	configured(t, w, "users:\n  nightly@acme: {password_file: password, grants: [photos]}\n  audit@acme: {password_file: second, grants: [papers]}\nsocket: agent-of-file.sock\n")
	place := filepath.Join(w.dir, "config", "stoker")
	if err := os.MkdirAll(place, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"stoker-agent.yaml", "ca.pem", "agent.pem", "agent.key", "password", "second"} {
		if err := os.Rename(filepath.Join(w.dir, name), filepath.Join(place, name)); err != nil {
			t.Fatal(err)
		}
	}
	w.env = append(w.env, "XDG_CONFIG_HOME="+filepath.Join(w.dir, "config"), "HOME="+filepath.Join(w.dir, "config"))
	// The home's place on macOS.
	library := filepath.Join(w.dir, "config", "Library", "Application Support")
	if err := os.MkdirAll(library, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(place, filepath.Join(library, "stoker")); err != nil {
		t.Fatal(err)
	}
	code, out, errs := w.run(t, nil, "check")
	if code != 0 || !strings.Contains(out, "is good: 2 users, 2 grants") {
		t.Errorf("check: %d %s %s", code, out, errs)
	}
	if code, out, errs := w.run(t, nil, "whoami", "--login", "audit@acme"); code != 0 || !strings.Contains(out, "audit@acme") {
		t.Errorf("whoami: %d %s %s", code, out, errs)
	}
	if code, _, errs := w.run(t, nil, "whoami"); code != 1 || !strings.Contains(errs, "choose one with --login (audit@acme, nightly@acme)") {
		t.Errorf("whoami of nobody: %d %s", code, errs)
	}
	if code, _, errs := w.run(t, nil, "whoami", "--login", "x@acme"); code != 1 || !strings.Contains(errs, "has no user x@acme") {
		t.Errorf("whoami of another: %d %s", code, errs)
	}
	// The grant says whose it is.
	if code, out, errs := w.run(t, nil, "exec", "-g", "papers", "--", os.Args[0], "env"); code != 0 || !strings.Contains(out, "/v1/credentials/papers") {
		t.Errorf("exec: %d %s %s", code, out, errs)
	}
	if code, out, errs := w.run(t, nil, "credential-process", "-g", "papers"); code != 0 || !strings.Contains(out, "ASIA") {
		t.Errorf("credential-process: %d %s %s", code, out, errs)
	}
	if code, _, _ := w.run(t, nil, "status"); code != exitNoAgent {
		t.Errorf("status: %d", code)
	}
	// A running agent is found where the file says that it is.
	r := w.start(t, nil, "run")
	r.line(t, "/v1/credentials/papers")
	w.wait(t, "it is well", func(code int, _ agent.Report) bool { return code == 0 })
	logins := w.broker.Logins()
	if code, out, errs := w.run(t, nil, "credential-process", "-g", "papers"); code != 0 || !strings.Contains(out, "ASIA") || w.broker.Logins() != logins {
		t.Errorf("credential-process by the agent: %d %s %s, and %d logins", code, out, errs, w.broker.Logins()-logins)
	}
	r.stop(t)
}

// What a configuration file refuses, the commands refuse, with the place.
func TestFileRefusals(t *testing.T) {
	w := newWorld(t)
	file := configured(t, w, "users: {nightly@acme: {password_file: open}, b@acme: {password_credential: none, grants: [x]}}\nlisten: 1\nwhat: 1\n")
	if err := os.WriteFile(filepath.Join(w.dir, "open"), []byte("CANARY"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"run", "check"} {
		code, out, errs := w.run(t, nil, command, "--config", file)
		if code != 1 || out != "" {
			t.Errorf("%s: %d %q", command, code, out)
		}
		for _, says := range []string{
			file + ":6:24: users.nightly@acme.password_file: password file: " + w.dir + "/open is open to every user of this machine: run chmod 600 " + w.dir + "/open",
			"users.nightly@acme: missing grants", "users.b@acme.password_credential: credential none: CREDENTIALS_DIRECTORY is not set",
			"listen: stands twice", "8:1: what: unknown key",
		} {
			if !strings.Contains(errs, says) {
				t.Errorf("%s does not say %q:\n%s", command, says, errs)
			}
		}
	}
	good := configured(t, w, "users: {nightly@acme: {password_file: password}}\n")
	for says, args := range map[string][]string{
		"settings come from a file or from flags":                       {"run", "--config", good, "--broker", "b:1"},
		"--grant (STOKER_GRANT) is set beside a configuration file":     {"run", "--config", good, "--grant", "photos"},
		"--imds (STOKER_IMDS) is set beside a configuration file":       {"run", "--config", good, "--imds", "127.0.0.1:0"},
		"--no-renew (STOKER_RENEW) is set beside a configuration file":  {"run", "--config", good, "--no-renew"},
		"there is no configuration file":                                {"check"},
		"none.yaml":                                                     {"check", "--config", "none.yaml"},
		"none.yaml: no such":                                            {"status", "--config", "none.yaml"},
		"missing --broker or STOKER_BROKER: the broker's host:port, or": {"run"},
		"--output must be one of":                                       {"status", "-o", "xml"},
		"--imds-grant needs --imds":                                     {"run", "--imds-grant", "x", "--broker", w.broker.Address(), "--cert", w.files.Cert, "--key", w.files.Key, "--login", clienttest.Login, "--password-file", w.files.Password},
		"served on loopback alone":                                      {"run", "--imds", "0.0.0.0:0", "--listen", "127.0.0.1:0", "--broker", w.broker.Address(), "--cert", w.files.Cert, "--key", w.files.Key, "--login", clienttest.Login, "--password-file", w.files.Password},
	} {
		code, out, errs := w.run(t, nil, args...)
		if code == 0 || out != "" || !strings.Contains(errs, says) {
			t.Errorf("%v: %d, %q does not say %q", args, code, errs, says)
		}
	}
}

// A machine without an agent, or with an agent that answers something else.
func TestStatusOfAStranger(t *testing.T) {
	w := newWorld(t)
	if code, _, errs := w.run(t, nil, "status", "--socket", filepath.Join(w.dir, "password")); code != exitNoAgent || !strings.Contains(errs, "no agent") {
		t.Errorf("of a file: %d %s", code, errs)
	}
}

func TestKeyring(t *testing.T) {
	w := newWorld(t)
	ring := filepath.Join(w.dir, "ring")
	w.env = append(w.env, childRing+"="+ring, "STOKER_PASSWORD_FILE=")
	// With a right password, which the broker is asked about.
	command := w.command(t, nil, "login", "--password-file", "-")
	command.Stdin = strings.NewReader(w.broker.Password() + "\n")
	if out, err := command.CombinedOutput(); err != nil || !strings.Contains(string(out), "the keyring has the password of nightly@acme") {
		t.Fatalf("login: %s %v", out, err)
	}
	if code, out, errs := w.run(t, nil, "whoami"); code != 0 || !strings.Contains(out, "nightly@acme") {
		t.Errorf("whoami by the keyring: %d %s %s", code, out, errs)
	}
	file := configured(t, w, "users: {nightly@acme: {password_keyring: true}}\n")
	w.env = append(w.env, childRing+"="+ring)
	if code, out, errs := w.run(t, nil, "whoami", "--config", file); code != 0 {
		t.Errorf("whoami by the file: %d %s %s", code, out, errs)
	}
	// A wrong one is not stored.
	command = w.command(t, nil, "login", "--config", file, "--password-file", "-")
	command.Stdin = strings.NewReader("CANARY-wrong")
	var exit interface{ ExitCode() int }
	if out, err := command.CombinedOutput(); !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(out), "nothing was stored: LOGIN_REJECTED") || strings.Contains(string(out), "CANARY") {
		t.Errorf("a wrong one: %s %v", out, err)
	}
	if code, _, errs := w.run(t, nil, "login", "--config", file); code != 1 || !strings.Contains(errs, "there is no terminal to ask on") {
		t.Errorf("without a terminal: %d %s", code, errs)
	}
	if code, out, _ := w.run(t, nil, "logout", "--login", clienttest.Login); code != 0 || !strings.Contains(out, "no password of nightly@acme any more") {
		t.Errorf("logout: %d %s", code, out)
	}
	if code, _, errs := w.run(t, nil, "logout", "--login", clienttest.Login); code != 1 || !strings.Contains(errs, "no such password") {
		t.Errorf("logout twice: %d %s", code, errs)
	}
	for _, command := range []string{"whoami", "check", "run"} {
		if code, _, errs := w.run(t, nil, command, "--config", file); code != 1 || !strings.Contains(errs, file+":6:24: users.nightly@acme.password_keyring: the keyring has no password") {
			t.Errorf("%s without a password: %d %s", command, code, errs)
		}
	}
}

func TestSystemdCredential(t *testing.T) {
	w := newWorld(t)
	code, out, errs := w.run(t, []string{"STOKER_PASSWORD_FILE=", "CREDENTIALS_DIRECTORY=" + w.dir}, "whoami")
	if code != 0 || !strings.Contains(out, "nightly@acme") {
		t.Errorf("%d %s %s", code, out, errs)
	}
}

// A consumer's token is good for its own grants alone, and the agent's own for all.
func TestConsumers(t *testing.T) {
	w := newWorld(t, clienttest.WithGrants("photos", "videos"))
	file := configured(t, w, `
users: {nightly@acme: {password_file: password, grants: [photos, videos]}}
consumers:
  restic: {token_file: restic.token, grants: [photos]}
`)
	r := w.start(t, nil, "run", "--config", file)
	uri := strings.TrimPrefix(r.line(t, "/v1/credentials/photos"), "export AWS_CONTAINER_CREDENTIALS_FULL_URI=")
	base := strings.TrimSuffix(uri, "/photos")
	r.line(t, "# for restic:")
	if line := r.line(t, ""); line != "export AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE="+filepath.Join(w.dir, "restic.token") {
		t.Error(line)
	}
	w.wait(t, "both grants", func(code int, _ agent.Report) bool { return code == 0 })
	for _, c := range []struct {
		token, grant string
		want         int
	}{
		{filepath.Join(w.dir, "restic.token"), "photos", 200},
		{filepath.Join(w.dir, "restic.token"), "videos", 403},
		{w.place("token"), "photos", 200},
		{w.place("token"), "videos", 200},
	} {
		token, err := os.ReadFile(c.token)
		if err != nil {
			t.Fatal(err)
		}
		if status, body, err := askEndpoint(base+"/"+c.grant, string(token)); status != c.want || err != nil {
			t.Errorf("%s with %s: %d %s %v", c.grant, c.token, status, body, err)
		}
	}
	r.stop(t)
}

func TestIMDS(t *testing.T) {
	w := newWorld(t)
	r := w.start(t, nil, "run", "--listen", "127.0.0.1:0", "--imds", "127.0.0.1:0")
	line := r.line(t, "AWS_EC2_METADATA_SERVICE_ENDPOINT=http://127.0.0.1:")
	if !strings.HasPrefix(line, "export ") {
		t.Error(line)
	}
	r.stop(t)
}
