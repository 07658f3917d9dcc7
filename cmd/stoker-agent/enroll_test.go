//go:build unix

package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/client/clienttest"
	"github.com/stokerd/stoker/internal/partner"
	"github.com/stokerd/stoker/internal/polling"
)

// joining is a world with a join token, and the variables to enroll with.
func joining(t *testing.T) (w *world, token string, env []string) {
	t.Helper()
	w = newWorld(t, clienttest.WithEnrollment())
	return w, w.broker.Invite(), []string{"STOKER_ENROLLMENT=" + w.broker.Enrollment(w.dir).Address}
}

// hides fails if a text has any of the token's secret in it.
func hides(t *testing.T, token string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if strings.Contains(text, strings.Split(token, ".")[2]) {
			t.Errorf("the token is in %q", text)
		}
	}
}

// TestEnroll enrolls, and then does what it says to do next.
func TestEnroll(t *testing.T) {
	w, token, env := joining(t)
	file := filepath.Join(w.dir, "token")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(w.dir, "the agent's", "files")
	code, out, errs := w.run(t, env, "enroll", "--token-file", file, "--out", dir)
	if code != 0 || errs != "" || !strings.Contains(out, "enrolled as "+clienttest.AgentID+"\n") || !strings.Contains(out, "LOGIN@acme") {
		t.Fatalf("%d %s %s", code, out, errs)
	}
	hides(t, token, out)
	files := client.FilesIn(dir)
	for name, want := range map[string]string{"STOKER_CA": files.Authority, "STOKER_CERT": files.Certificate, "STOKER_KEY": files.Key} {
		if line := "export " + name + "='" + strings.ReplaceAll(want, "'", `'\''`) + "'\n"; !strings.Contains(out, line) {
			t.Errorf("it does not say %s:\n%s", line, out)
		}
	}
	code, out, errs = w.run(t, []string{"STOKER_CA=" + files.Authority, "STOKER_CERT=" + files.Certificate, "STOKER_KEY=" + files.Key}, "whoami")
	if code != 0 || !strings.Contains(out, ", to be renewed at ") {
		t.Errorf("%d %s %s", code, out, errs)
	}
}

func TestEnrollTokenPlaces(t *testing.T) {
	w, token, env := joining(t)
	code, _, errs := w.run(t, append(env, "STOKER_JOIN_TOKEN="+token), "enroll", "--out", filepath.Join(w.dir, "a"))
	if code != 0 {
		t.Errorf("from the environment: %d %s", code, errs)
	}
	r := w.start(t, env, "enroll", "--token-file", "-", "--out", filepath.Join(w.dir, "b"))
	if _, err := r.stdin.Write([]byte(w.broker.Invite() + "\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := r.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	r.line(t, "enrolled as")
	for range r.lines {
	}
	if err := r.command.Wait(); err != nil {
		t.Errorf("from standard input: %v: %s", err, r.stderr.String())
	}
}

func TestEnrollRefusals(t *testing.T) {
	w, token, env := joining(t)
	other := clienttest.New(t, clienttest.WithEnrollment())
	write := func(name, text string, mode os.FileMode) string {
		t.Helper()
		file := filepath.Join(w.dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(text), mode)); err != nil {
			t.Fatal(err)
		}
		return file
	}
	good := write("good", token, 0o600)
	there := filepath.Dir(write("there/agent.key", "dear", 0o600))
	for name, c := range map[string]struct {
		env  []string
		args []string
		code int
		says string
	}{
		"no token":            {nil, nil, 1, "--token-file"},
		"open token file":     {nil, []string{"--token-file", write("open", token, 0o644)}, 1, "chmod 600"},
		"no such token file":  {nil, []string{"--token-file", "/nonexistent"}, 1, "join token file: open /nonexistent"},
		"empty token file":    {nil, []string{"--token-file", write("empty", "\n", 0o600)}, 1, "is empty"},
		"garbage":             {nil, []string{"--token-file", write("garbage", token[:80], 0o600)}, 1, "not a join token"},
		"files there":         {nil, []string{"--token-file", good, "--out", there}, 1, "pass --force"},
		"another broker":      {[]string{"STOKER_ENROLLMENT=" + other.Enrollment(w.dir).Address}, []string{"--token-file", good}, 1, "not the broker that the join token is for"},
		"the agents' port":    {[]string{"STOKER_ENROLLMENT=" + w.broker.Address()}, []string{"--token-file", good}, 1, "not the broker that the join token is for"},
		"another name":        {nil, []string{"--token-file", good, "--server-name", "elsewhere.test"}, 1, "elsewhere.test"},
		"nobody there":        {[]string{"STOKER_ENROLLMENT=127.0.0.1:1"}, []string{"--token-file", good}, 1, "connection refused"},
		"no broker":           {[]string{"STOKER_ENROLLMENT="}, []string{"--token-file", good}, 1, "host:port"},
		"the token as a flag": {nil, []string{"--token", "CANARY"}, 2, "--token"},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"enroll", "--out", filepath.Join(w.dir, "new")}, c.args...)
			code, out, errs := w.run(t, append(env, c.env...), args...)
			if code != c.code || !strings.Contains(errs, c.says) || code == 1 && out != "" {
				t.Errorf("exit code %d; it prints %q and %q", code, out, errs)
			}
			hides(t, token, out, errs)
		})
	}
	// The token is as good as ever.
	if code, _, errs := w.run(t, env, "enroll", "--token-file", good, "--out", there, "--force"); code != 0 {
		t.Errorf("with --force: %d %s", code, errs)
	}
	code, _, errs := w.run(t, env, "enroll", "--token-file", good, "--out", filepath.Join(w.dir, "again"))
	if code != 1 || !strings.Contains(errs, "JOIN_TOKEN_USED") {
		t.Errorf("a second time: %d %s", code, errs)
	}
}

// TestRunRenews: an agent that stays replaces a certificate that is due, unless it
// is told not to.
func TestRunRenews(t *testing.T) {
	w, _, _ := joining(t)
	files := client.Files{Certificate: w.files.Cert, Key: w.files.Key}
	// Five minutes are left of an hour.
	w.files.WriteCertificate(t, w.broker.AgentCertificate(clienttest.AgentID, 5*time.Minute))
	before, err := client.ReadCertificate(files)
	if err != nil {
		t.Fatal(err)
	}
	r := w.start(t, nil, "run", "--no-renew", "--listen", partner.FreeAddress(t))
	if err := w.broker.Await(t.Context(), func(b *clienttest.Broker) bool { return len(b.Acknowledged()) == 1 }); err != nil {
		t.Fatal(err)
	}
	r.stop(t)
	if now, err := client.ReadCertificate(files); err != nil || now != before || w.broker.AskedCertificates() != 0 {
		t.Errorf("told not to, it has %v, %v", now, err)
	}

	r = w.start(t, nil, "run", "--listen", partner.FreeAddress(t))
	var now client.Certificate
	polling.Until(t.Context(), t, "a renewed certificate in use", func() bool {
		now, err = client.ReadCertificate(files)
		// The third login is with the new certificate.
		return err == nil && now.Serial != before.Serial && w.broker.Streams() == 1 && w.broker.Logins() == 3
	})
	r.stop(t)
	if log := r.stderr.String(); !strings.Contains(log, now.Serial) || !strings.Contains(log, "to be renewed at") {
		t.Errorf("the log says\n%s", log)
	}
}

// TestWatchTellsOfCertificates: renewals and their failures are events too.
func TestWatchTellsOfCertificates(t *testing.T) {
	at := time.Date(2026, 12, 24, 12, 0, 0, 0, time.UTC)
	var out bytes.Buffer
	p := &eventPrinter{watchCommand: watchCommand{JSON: true}, to: &out, end: make(chan error, 1)}
	p.print(client.Event{
		Kind: client.EventCertificate, Time: at, RetryTime: at.Add(time.Minute),
		Certificate: client.Certificate{SPIFFEID: clienttest.AgentID, Serial: "4711", NotBefore: at, Expires: at.Add(time.Hour)},
		Err:         &client.Error{Reason: client.ReasonAgentDisabled, Message: "ask the provider"},
	})
	want := `{"time":"2026-12-24T12:00:00Z","event":"certificate","certificate":{"spiffe_id":"` + clienttest.AgentID + `","serial":"4711",` +
		`"not_before":"2026-12-24T12:00:00Z","expires":"2026-12-24T13:00:00Z"},"reason":"AGENT_DISABLED","message":"ask the provider",` +
		`"transient":false,"retry_time":"2026-12-24T12:01:00Z"}` + "\n"
	if got := out.String(); got != want {
		t.Errorf("got  %swant %s", got, want)
	}
	out.Reset()
	p.JSON = false
	p.print(client.Event{Kind: client.EventCertificate, Time: at, Certificate: client.Certificate{SPIFFEID: clienttest.AgentID, Serial: "4711", Expires: at, RenewTime: at}})
	if got, want := out.String(), "2026-12-24T12:00:00Z  certificate 4711 of "+clienttest.AgentID+" until 2026-12-24T12:00:00Z, to be renewed at 2026-12-24T12:00:00Z\n"; got != want {
		t.Errorf("got  %swant %s", got, want)
	}
}
