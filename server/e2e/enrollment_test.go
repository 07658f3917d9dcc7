package e2e_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/internal/partner"
	"github.com/stokerd/stoker/internal/polling"
	"github.com/stokerd/stoker/server/internal/reason"
)

// enrolling is a provider and an agent's machine, as docs/enrollment.md has them.
type enrolling struct {
	*daemon
	work, agentDir string
	enrollment     string // the listener's address
	password       string // its file
}

func newEnrolling(ctx context.Context, t *testing.T) *enrolling {
	t.Helper()
	e := &enrolling{daemon: newDaemon(t, ""), work: t.TempDir(), enrollment: partner.FreeAddress(t)}
	e.agentDir, e.password = filepath.Join(e.work, "the agent's"), filepath.Join(e.work, "password")
	password, _ := e.fleet(ctx, 0, time.Hour)
	must(t, os.WriteFile(e.password, []byte(password), 0o600))
	return e
}

// configure adds to the configuration and starts the broker anew.
func (e *enrolling) configure(t *testing.T, text string) {
	t.Helper()
	before, err := os.ReadFile(e.config)
	must(t, err)
	must(t, os.WriteFile(e.config, append(before, text...), 0o600))
	e.kill()
	e.start()
}

// shell prepares the commands of a block, which run on an operator's machine
// ("operator"), an agent's ("agent"), or where the PKI is ("pki").
func (e *enrolling) shell(ctx context.Context, where, text string) *exec.Cmd {
	for placeholder, value := range map[string]string{
		"stoker.example.com:8444": strings.Replace(e.enrollment, "127.0.0.1", "localhost", 1),
		"/etc/stoker-agent":       `"` + e.agentDir + `"`,
		"backup.example.com":      "test.example",
	} {
		text = strings.ReplaceAll(text, placeholder, value)
	}
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", text)
	cmd.Dir = e.work
	cmd.Env = append(clean(), "PATH="+programs+":"+os.Getenv("PATH"), "STOKER_BROKER="+e.addr)
	files := client.FilesIn(e.agentDir)
	if where == "operator" {
		files = client.Files{Authority: filepath.Join(e.dir, "ca.pem"), Certificate: filepath.Join(e.dir, "root.pem"), Key: filepath.Join(e.dir, "root.key")}
	}
	cmd.Env = append(cmd.Env,
		"STOKER_CA="+files.Authority, "STOKER_CERT="+files.Certificate, "STOKER_KEY="+files.Key,
		"STOKER_LOGIN=backup@acme", "STOKER_PASSWORD_FILE="+e.password)
	return cmd
}

// The commands of docs/enrollment.md do what it says, with the real programs.
func TestEnrollmentAsDocumented(t *testing.T) {
	partner.LookPath(t, "openssl", "install OpenSSL 3")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	e := newEnrolling(ctx, t)
	var own []string // the blocks about a PKI of one's own
	for _, b := range readPage(t, "enrollment.md").blocks() {
		kind, text := b.kind, b.text
		switch {
		case kind == "yaml" && strings.Contains(text, "0.0.0.0:8444"):
			e.configure(t, strings.Replace(text, "0.0.0.0:8444", e.enrollment, 1))
		case kind == "yaml", kind == "sh pki":
			own = append(own, text)
		case strings.HasPrefix(kind, "sh "):
			out := run(t, e.shell(ctx, strings.TrimPrefix(kind, "sh "), text))
			if strings.Contains(text, "enroll ") && !strings.Contains(out, "enrolled as spiffe://test.example/tenant/acme/agent/") {
				t.Errorf("%s\nsays\n%s", text, out)
			}
			if strings.Contains(text, "whoami") && !strings.Contains(out, "to be renewed at") {
				t.Errorf("%s\nsays\n%s", text, out)
			}
		default:
			t.Errorf("nothing runs this %s:\n%s", kind, text)
		}
	}
	// What was enrolled as nas works, what was revoked as laptop does not.
	run(t, e.shell(ctx, "agent", "stoker-agent exec -- true"))
	e.agentDir = filepath.Join(e.work, "laptop")
	if out := fails(t, e.shell(ctx, "agent", "stoker-agent whoami")); !strings.Contains(out, string(reason.CertificateRevoked)) {
		t.Errorf("revoked, it says %s", out)
	}
	if _, err := os.Stat(filepath.Join(e.work, "nas.token")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the token is still there: %v", err)
	}
	if len(own) != 3 {
		t.Fatalf("%d blocks about a PKI of one's own", len(own))
	}
	e.ownPKI(ctx, t, own)
}

// provider makes what a provider with a PKI has: an authority for clients, with
// what "openssl ca" needs, and a server certificate.
const provider = `
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout clients.key -out clients.pem -days 365 -subj "/CN=Example clients"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout server.key -out server.pem -days 30 -subj /CN=broker \
  -addext "subjectAltName = DNS:localhost, IP:127.0.0.1" -addext "extendedKeyUsage = serverAuth"
cat > ca.cnf <<END
[ca]
default_ca = clients
[clients]
certificate = clients.pem
private_key = clients.key
database = index.txt
new_certs_dir = .
serial = serial
default_md = sha256
default_crl_days = 7
crlnumber = crlnumber
crl_extensions = list
copy_extensions = copy
policy = any
[list]
authorityKeyIdentifier = keyid
[any]
commonName = supplied
END
touch index.txt
echo 4711 > serial
echo 01 > crlnumber
openssl ca -config ca.cnf -gencrl -out crl.pem
chmod 600 server.key
`

// ownPKI runs the other half of the page: the configuration, a certificate, its
// revocation.
func (e *enrolling) ownPKI(ctx context.Context, t *testing.T, blocks []string) {
	t.Helper()
	run(t, e.shell(ctx, "pki", provider))
	run(t, e.shell(ctx, "pki", blocks[1]))
	text, err := os.ReadFile(e.config)
	must(t, err)
	// A copy of the configuration without the listener for new agents.
	before, _, _ := strings.Cut(string(text), "enrollment:")
	must(t, os.WriteFile(e.config, []byte(before), 0o600))
	e.configure(t, strings.ReplaceAll(blocks[0], "/etc/stoker/", e.work+"/"))

	must(t, os.MkdirAll(filepath.Join(e.work, "own"), 0o700))
	run(t, e.shell(ctx, "pki", "cp agent.key agent.pem own/ && cp server.pem own/ca.pem"))
	e.agentDir = filepath.Join(e.work, "own")
	if out := run(t, e.shell(ctx, "agent", "stoker-agent whoami")); !strings.Contains(out, "spiffe://test.example/tenant/acme/agent/nas") {
		t.Errorf("it says %s", out)
	}
	run(t, e.shell(ctx, "pki", blocks[2]))
	polling.Until(ctx, t, "the broker to read the list", func() bool {
		out, err := e.shell(ctx, "agent", "stoker-agent whoami").CombinedOutput()
		return err != nil && strings.Contains(string(out), "refused this agent's certificate")
	})
}
