//go:build unix

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/client/clienttest"
	"github.com/stokerd/stoker/client/delivery"
)

// oneCredential is a supply of one.
type oneCredential struct{}

func (oneCredential) Grants() []string { return []string{"photos"} }

func (oneCredential) Credential(string) (client.Credential, error) {
	return client.Credential{
		Grant: "photos", AccessKeyID: "ASIAEXAMPLE", SecretAccessKey: "secret", SessionToken: "token", Expires: time.Now().Add(time.Hour),
	}, nil
}

// BenchmarkCredentialProcess is what a tool waits for whenever it calls
// credential-process, from the start of the program to its end: with an agent
// running, and without one, where the broker is asked over a new connection with
// a new login. "start" is the program's own start and end in that.
func BenchmarkCredentialProcess(b *testing.B) {
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "agent") // sockets have short paths
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	measure := func(name string, env []string, args ...string) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				command := exec.CommandContext(b.Context(), self, args...)
				command.Env = append([]string{childMode + "=agent", "HOME=" + dir, "XDG_RUNTIME_DIR=" + filepath.Join(dir, "run")}, env...)
				if out, err := command.CombinedOutput(); err != nil {
					b.Fatalf("%v: %s", err, out)
				}
			}
		})
	}
	measure("start", nil, "version")

	socket := filepath.Join(dir, "s", "agent.sock")
	local, err := delivery.ListenLocal(socket, oneCredential{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	measure("agent", nil, "credential-process", "--grant", "photos", "--socket", socket)
	if err := local.Close(); err != nil {
		b.Fatal(err)
	}

	broker := clienttest.New(b)
	files := broker.Files(dir)
	measure("broker", []string{
		"STOKER_BROKER=" + broker.Address(), "STOKER_CA=" + files.CA, "STOKER_CERT=" + files.Cert, "STOKER_KEY=" + files.Key,
		"STOKER_LOGIN=" + clienttest.Login, "STOKER_PASSWORD_FILE=" + files.Password,
	}, "credential-process", "--grant", "photos", "--socket", socket)
}
