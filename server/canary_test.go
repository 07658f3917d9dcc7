package server_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server"
	"github.com/stokerd/stoker/server/internal/brokertest"
	"github.com/stokerd/stoker/server/internal/issuer/devsts"
	"github.com/stokerd/stoker/server/internal/pki"
)

// canaryDir is set in the process that plays the flow: what it leaves behind in
// "searched" must hold no secret, and "secrets.json" has them.
const canaryDir = "STOKER_TEST_CANARY_DIR"

// Everything that a broker does is done once, with secrets that are known and
// everything logged that can be; then what it wrote, said and stored is searched
// for them. The flow has a process of its own, so that standard output and error
// are searched too, whoever writes to them.
func TestSecretsStayWhereTheyBelong(t *testing.T) {
	if dir := os.Getenv(canaryDir); dir != "" {
		playCanaries(t, dir)
		return
	}
	t.Parallel()
	dir := t.TempDir()
	searched := filepath.Join(dir, "searched")
	wantOK(t, os.Mkdir(searched, 0o700))
	flow := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=2m")
	flow.Env = append(os.Environ(), canaryDir+"="+dir, "GRPC_GO_LOG_SEVERITY_LEVEL=info", "GRPC_GO_LOG_VERBOSITY_LEVEL=99", "GOTRACEBACK=all")
	var stdout, stderr bytes.Buffer
	flow.Stdout, flow.Stderr = &stdout, &stderr
	if err := flow.Run(); err != nil {
		end := stderr.Bytes()
		t.Fatalf("the flow failed: %v\n%s\n%s", err, stdout.Bytes(), end[max(0, len(end)-4000):])
	}
	wantOK(t, os.WriteFile(filepath.Join(searched, "stdout"), stdout.Bytes(), 0o600))
	wantOK(t, os.WriteFile(filepath.Join(searched, "stderr"), stderr.Bytes(), 0o600))
	secrets := map[string][]byte{}
	text, err := os.ReadFile(filepath.Join(dir, "secrets.json"))
	wantOK(t, err)
	wantOK(t, json.Unmarshal(text, &secrets))
	found, files := leaksIn(t, searched, secrets)
	for _, l := range found {
		t.Errorf("%s: the %s, %s", l.where, l.secret, l.form)
	}
	// What is no secret is where it should be: the search saw what was written.
	for file, known := range map[string]string{
		"stdout": t.Name(), "stderr": "[transport]", "log.json": "LOGIN_REJECTED", "audit.jsonl": "LOGIN_REJECTED", "stoker.db": "LOGIN_REJECTED",
		"live/stoker.db-wal": "LOGIN_REJECTED", "metrics": "stoker_streams", "answers": "LOGIN_REJECTED", "goroutines": "goroutine",
		"traces": "GetCredentials",
	} {
		text, err := os.ReadFile(filepath.Join(searched, file))
		if wantOK(t, err); len(leaks(file, text, map[string][]byte{"control": []byte(known)})) == 0 {
			t.Errorf("%s does not have %s: it was not written, or not searched", file, known)
		}
		t.Logf("%s: %d bytes", file, len(text))
	}
	t.Logf("%d secrets, %d files", len(secrets), files)
	if len(secrets) < 25 {
		t.Errorf("only %d secrets", len(secrets))
	}
}

// flow is the state of the flow.
type flow struct {
	t   *testing.T
	b   *brokertest.Broker
	dir string

	mu      sync.Mutex
	secrets map[string][]byte
	answers *os.File
}

// secret notes one and gives it back.
func (f *flow) secret(name, value string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(value) < 8 {
		f.t.Fatalf("the %s is too short to be looked for", name)
	}
	key := name
	for n := 2; f.secrets[key] != nil && string(f.secrets[key]) != value; n++ {
		key = fmt.Sprintf("%s (%d)", name, n)
	}
	f.secrets[key] = []byte(value)
	return value
}

// said keeps an answer that must hold no secret: a message, or a status with
// its details.
func (f *flow) said(what string, m proto.Message, err error) {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		st := status.Convert(err)
		m = st.Proto()
		fmt.Fprintf(f.answers, "%s: %v\n%s\n", what, err, st)
	}
	raw, encodeErr := proto.Marshal(m)
	wantOK(f.t, encodeErr)
	fmt.Fprintf(f.answers, "%s: %s\n%s\n", what, prototext.Format(m), raw)
}

// refused keeps the answer of a call that must fail.
func (f *flow) refused(what string, err error) {
	f.t.Helper()
	if err == nil {
		f.t.Fatalf("%s was not refused", what)
	}
	f.said(what, nil, err)
}

var (
	secretKey    = regexp.MustCompile(`<SecretAccessKey>([^<]+)`)
	sessionToken = regexp.MustCompile(`<SessionToken>([^<]+)`)
)

// overhear stands between the broker and the STS, and notes every secret that
// the STS gives out, those included that no agent ever gets.
func (f *flow) overhear(sts string) string {
	target, err := url.Parse(sts)
	wantOK(f.t, err)
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // it is signed
		},
		ModifyResponse: func(r *http.Response) error {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return err
			}
			for _, m := range secretKey.FindAllSubmatch(body, -1) {
				f.secret("secret access key", string(m[1]))
			}
			for _, m := range sessionToken.FindAllSubmatch(body, -1) {
				f.secret("session token", string(m[1])[:60])
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			return nil
		},
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	s := httptest.NewServer(proxy)
	f.t.Cleanup(s.Close)
	return s.URL
}

func playCanaries(t *testing.T, dir string) {
	searched := filepath.Join(dir, "searched")
	answers, err := os.Create(filepath.Join(searched, "answers"))
	wantOK(t, err)
	log, err := os.Create(filepath.Join(searched, "log.json"))
	wantOK(t, err)
	f := &flow{t: t, dir: searched, secrets: map[string][]byte{}, answers: answers}
	traces := startCollector(t)
	f.b = brokertest.Start(t, brokertest.Options{
		Log: slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.Level(-100), AddSource: true})),
		STS: func(c *devsts.Config) { f.secret("long-term key", c.Users[0].SecretAccessKey.Reveal()) },
		Configure: func(c *server.Config) {
			c.Storage.SQLite = filepath.Join(searched, "stoker.db")
			c.Audit.Export = filepath.Join(searched, "audit.jsonl")
			c.Operations = "127.0.0.1:0"
			c.Tracing = server.TracingConfig{Endpoint: traces.url, Sample: 1}
			c.Enrollment = &server.EnrollmentConfig{Listen: "127.0.0.1:0"}
			c.Services = map[string]server.ServiceConfig{"restorer": {Tenants: []string{"*"}, Access: []string{"backup"}}}
			main := c.Accounts["main"]
			main.Endpoint = f.overhear(main.Endpoint)
			c.Accounts["main"] = main
		},
	})
	f.ownKeys()
	f.b.Location(&stokerv1.Location{Name: "main", Bucket: "shared-bucket"})
	f.watchEvents()
	f.operate()
	acme := f.enrollAndStream()
	f.refusals(acme)
	f.delegate(acme)
	f.troubleWithSTS(acme)
	f.readEverything()
	f.copyLive()
	f.cutOff(acme)
	f.b.Stop() // sends the last spans
	wantOK(t, os.WriteFile(filepath.Join(searched, "traces"), []byte(traces.all.String()), 0o600))
	f.badConfigurations()
	secrets, err := json.Marshal(f.secrets)
	wantOK(t, err)
	wantOK(t, os.WriteFile(filepath.Join(dir, "secrets.json"), secrets, 0o600))
	wantOK(t, answers.Close())
	wantOK(t, log.Close())
}

// ownKeys notes the broker's own keys.
func (f *flow) ownKeys() {
	text, err := os.ReadFile(f.b.Config.EncryptionKeyFile)
	wantOK(f.t, err)
	f.secret("encryption key, as written", string(text))
	key, err := base64.StdEncoding.DecodeString(string(text))
	wantOK(f.t, err)
	f.secret("encryption key", string(key))
	_, tokenKey := f.b.TokenKey()
	f.secret("key of access tokens", string(tokenKey))
	authority, err := f.b.Authority().KeyPEM()
	wantOK(f.t, err)
	// The first lines are the same for all keys of the kind.
	lines := strings.Split(authority.Reveal(), "\n")
	f.secret("authority's key", lines[len(lines)-3])
	f.secret("authority's key", lines[len(lines)-4])
}

const canaryPassword = `Canary+password/with=odd&characters? "1" \ ü`

// operate does what operators do, with passwords.
func (f *flow) operate() {
	t, users := f.t, stokerv1.NewUserServiceClient(f.b.Admin)
	f.b.Tenant("acme")
	create := func(login, password string) (*stokerv1.CreateUserResponse, error) {
		return users.CreateUser(t.Context(), &stokerv1.CreateUserRequest{User: &stokerv1.User{Tenant: "acme", Login: login}, Password: password})
	}
	made, err := create("backup", f.secret("password", canaryPassword))
	wantOK(t, err)
	f.said("create a user", made, nil)
	made, err = create("generated", "")
	wantOK(t, err)
	f.secret("generated password", made.GetGeneratedPassword())
	_, err = create("weak", f.secret("short password", "canaryshrt"))
	f.refused("a short password", err)
	_, err = create("long", strings.Repeat(f.secret("long password", "canary-long-"), 30))
	f.refused("a long password", err)
	_, err = create("known", "password1234")
	f.refused("a well known password", err)
	_, err = create("backup", f.secret("password for a taken login", "canary-for-a-taken-login"))
	f.refused("a taken login", err)
	f.b.Grant(&stokerv1.Grant{Tenant: "acme", Name: "nightly", Location: "main", Prefix: "acme/", Access: stokerv1.Access_ACCESS_BACKUP}, 2*time.Second)
}

// enroll spends a join token.
func (f *flow) enroll(token string, key bool) (*stokerv1.EnrollResponse, *grpc.ClientConn, tls.Certificate, error) {
	t := f.t
	private, request, err := pki.NewRequest()
	wantOK(t, err)
	if !key {
		request = request[:20]
	}
	conn, err := grpc.NewClient(f.b.Server.EnrollmentAddr().String(), grpc.WithTransportCredentials(credentials.NewTLS(f.b.TLS(tls.Certificate{}))))
	wantOK(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	answer, err := stokerv1.NewEnrollmentServiceClient(conn).Enroll(t.Context(), &stokerv1.EnrollRequest{JoinToken: token, CertificateRequest: request})
	if err != nil {
		return nil, conn, tls.Certificate{}, err
	}
	pair, err := pki.Pair(private, answer.GetCertificate().GetCertificatePem())
	wantOK(t, err)
	return answer, conn, pair, nil
}

// enrollAndStream brings an agent in and has it supplied for some renewals.
func (f *flow) enrollAndStream() agent {
	t := f.t
	invited, err := stokerv1.NewAgentServiceClient(f.b.Admin).InviteAgent(t.Context(), &stokerv1.InviteAgentRequest{Tenant: "acme", Name: "laptop"})
	wantOK(t, err)
	token := f.secret("join token", invited.GetJoinToken())
	_, _, _, err = f.enroll(token, false)
	f.refused("a broken request", err)
	_, _, _, err = f.enroll(f.secret("changed join token", "canary"+token), true)
	f.refused("a changed join token", err)
	answer, _, cert, err := f.enroll(token, true)
	wantOK(t, err)
	f.said("enroll", answer, nil)
	_, _, _, err = f.enroll(token, true)
	f.refused("a join token for the second time", err)

	acme := agent{conn: f.b.Dial(cert), cert: cert, tenant: "acme", name: "laptop", login: "backup", password: canaryPassword}
	acme = acme.session(t)
	f.secret("access token", acme.token)
	f.secret("signature of the access token", acme.token[strings.LastIndex(acme.token, ".")+1:])
	s := subscribe(t, acme)
	for range 3 {
		c := s.credential()
		f.secret("secret access key", c.GetSecretAccessKey())
		s.say(&stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_Acknowledge{Acknowledge: &stokerv1.Acknowledge{CredentialId: c.GetId()}}})
		s.say(&stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_ReportRefused{
			ReportRefused: &stokerv1.ReportRefused{CredentialId: c.GetId(), ErrorCode: "ExpiredToken"},
		}})
	}
	wantOK(t, s.CloseSend())
	got, err := acme.fetch(t)
	wantOK(t, err)
	f.secret("session token", got[0].GetSessionToken()[:60])
	return acme
}

// refusals makes the calls that are refused for what they bring along.
func (f *flow) refusals(acme agent) {
	t := f.t
	for n, authorization := range []string{
		basicOf("backup@acme", f.secret("wrong password", "canary-wrong-password")),
		basicOf("nobody@acme", f.secret("password of nobody", "canary-password-of-nobody")),
		basicOf("backup@other", f.secret("password elsewhere", "canary-password-elsewhere")),
		basicOf(f.secret("password in the login's place", "canary-as-login?"), "x"),
		"Basic " + f.secret("password that was not encoded", "backup@acme:canary-not-encoded"),
		"Digest " + f.secret("login of another scheme", "canary-of-another-scheme"),
		f.secret("password alone", "canary-password-alone"),
		"Bearer " + f.secret("foreign token", "canary.token.of-something-else"),
		"Bearer " + acme.token + "x", "Bearer " + acme.token[:len(acme.token)-10],
		"Bearer " + strings.Repeat(f.secret("long token", "canary-long-token"), 300),
	} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", authorization)
		// A certificate of its own: delays would hide what comes later.
		f.refused(fmt.Sprintf("authorization %d", n), acme.with(f.b, f.b.Certify("acme", "laptop")).whoami(ctx))
	}
	other := acme.with(f.b, f.b.Certify("acme", "laptop"))
	f.refused("a token on another certificate", other.whoami(acme.ctx(t)))
	_, err := acme.fetch(t, f.secret("secret in a grant's name", "canary-grant!"))
	f.refused("a secret in a grant's name", err)
	_, err = acme.fetch(t, strings.Repeat(f.secret("large request", "canary-large"), 30_000))
	f.refused("a large request", err)
}

func basicOf(login, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(login+":"+password))
}

// troubleWithSTS has the STS fail in all its ways, some with a secret in the
// answer.
func (f *flow) troubleWithSTS(acme agent) {
	for _, kind := range []devsts.FaultKind{devsts.Deny, devsts.Throttle, devsts.ServerError, devsts.Garble, devsts.Drop, devsts.SkewExpiry} {
		name := strings.ReplaceAll("trouble-"+string(kind), "_", "-")
		inject(f.t, f.b, devsts.Fault{Kind: kind, Skew: -time.Hour})
		f.b.Grant(&stokerv1.Grant{Tenant: "acme", Name: name, Location: "main", Prefix: "acme/" + name + "/", Access: stokerv1.Access_ACCESS_BACKUP}, time.Minute)
		_, err := acme.fetch(f.t, name)
		f.refused(name, err)
		f.b.STS.ClearFaults()
	}
}

// delegate has a service act for the tenant.
func (f *flow) delegate(acme agent) {
	t, service := f.t, stokerv1.NewDelegationServiceClient(f.b.Dial(f.b.IssueService("restorer")))
	got, err := service.IssueCredentials(t.Context(), &stokerv1.IssueCredentialsRequest{Tenant: "acme", Grant: "nightly", Reason: "ticket 1"})
	wantOK(t, err)
	f.secret("secret access key", got.GetCredential().GetSecretAccessKey())
	_, err = service.IssueCredentials(t.Context(), &stokerv1.IssueCredentialsRequest{Tenant: "acme", Grant: "none", Reason: "ticket 1"})
	f.refused("delegation", err)
	for _, token := range []string{acme.token, acme.token + "x"} {
		answer, err := service.IntrospectSession(t.Context(), &stokerv1.IntrospectSessionRequest{AccessToken: token})
		wantOK(t, err)
		f.said("introspection", answer, nil)
	}
}

// watchEvents keeps what operators see as it happens.
func (f *flow) watchEvents() {
	ctx, cancel := context.WithCancel(f.t.Context())
	events, err := stokerv1.NewFleetServiceClient(f.b.Admin).WatchEvents(ctx, &stokerv1.WatchEventsRequest{})
	wantOK(f.t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			m, err := events.Recv()
			if err != nil {
				return
			}
			f.said("event", m, nil)
		}
	}()
	f.t.Cleanup(func() { cancel(); <-ended })
}

// readEverything keeps whatever operators and machines can read.
func (f *flow) readEverything() {
	t, ctx, admin := f.t, f.t.Context(), f.b.Admin
	users, err := stokerv1.NewUserServiceClient(admin).ListUsers(ctx, &stokerv1.ListUsersRequest{Tenant: "acme"})
	f.said("users", users, err)
	agents, err := stokerv1.NewAgentServiceClient(admin).ListAgents(ctx, &stokerv1.ListAgentsRequest{Tenant: "acme"})
	f.said("agents", agents, err)
	grant, err := stokerv1.NewGrantServiceClient(admin).GetGrant(ctx, &stokerv1.GetGrantRequest{Tenant: "acme", Name: "nightly"})
	f.said("grant", grant, err)
	streams, err := stokerv1.NewFleetServiceClient(admin).ListStreams(ctx, &stokerv1.ListStreamsRequest{})
	f.said("streams", streams, err)
	trail, err := stokerv1.NewAuditServiceClient(admin).ListRecords(ctx, &stokerv1.ListRecordsRequest{PageSize: 1000})
	f.said("trail", trail, err)
	verified, err := stokerv1.NewAuditServiceClient(admin).Verify(ctx, &stokerv1.VerifyRequest{})
	f.said("verification", verified, err)
	for file, path := range map[string]string{"metrics": "/metrics", "readiness": "/readyz", "goroutines": "/debug/pprof/goroutine?debug=2"} {
		answer, err := http.Get("http://" + f.b.Server.OperationsAddr().String() + path)
		wantOK(t, err)
		text, err := io.ReadAll(answer.Body)
		wantOK(t, err)
		wantOK(t, answer.Body.Close())
		wantOK(t, os.WriteFile(filepath.Join(f.dir, file), text, 0o600))
	}
}

// copyLive keeps the database as it is while the broker runs: its log is gone
// after the stop.
func (f *flow) copyLive() {
	wantOK(f.t, os.Mkdir(filepath.Join(f.dir, "live"), 0o700))
	for _, suffix := range []string{"", "-wal", "-shm"} {
		text, err := os.ReadFile(filepath.Join(f.dir, "stoker.db"+suffix))
		wantOK(f.t, err)
		wantOK(f.t, os.WriteFile(filepath.Join(f.dir, "live", "stoker.db"+suffix), text, 0o600))
	}
}

// cutOff takes the agent's rights away, one after the other.
func (f *flow) cutOff(acme agent) {
	t := f.t
	s := subscribe(t, acme)
	s.credential()
	password := f.secret("second password", "canary second good password")
	_, err := stokerv1.NewUserServiceClient(f.b.Admin).UpdateUser(t.Context(), &stokerv1.UpdateUserRequest{
		User: &stokerv1.User{Tenant: "acme", Login: "backup"}, Password: password, UpdateMask: mask("password"),
	})
	wantOK(t, err)
	s.end()
	f.refused("the stream", s.err)
	f.refused("a token of before", acme.whoami(acme.ctx(t)))
	f.refused("the old password", acme.whoami(brokertest.Basic(t.Context(), "backup@acme", acme.password)))
	acme.password = password
	acme = acme.session(t)
	f.secret("access token", acme.token)
	deleteSession(t, acme)
	f.refused("an ended session", acme.whoami(acme.ctx(t)))
	revokeCertificate(t, f.b, acme)
	f.refused("a revoked certificate", acme.whoami(brokertest.Basic(t.Context(), "backup@acme", password)))
	disableUser(t, f.b, acme, true)
	deleteTenant(t, f.b, acme)
}

// badConfigurations reads configurations that are wrong next to a secret.
func (f *flow) badConfigurations() {
	password := f.secret("password of the database", "canary-of-the-database")
	for _, text := range []string{
		"storage: {postgres: 'postgres://stoker:" + password + "@127.0.0.1:1/stoker', sqlite: both}\n",
		"storage: {postgres: [postgres://stoker:" + password + "@127.0.0.1:1/stoker]}\n",
		"storage:\n  postgres: postgres://stoker:" + password + "@127.0.0.1:1/stoker\n  unknown: 1\n",
		"storage:\n  postgres: 'postgres://stoker:" + password + "\n",
	} {
		_, err := server.Parse("stoker.yaml", []byte(text))
		if err == nil {
			f.t.Fatalf("%s was taken", text)
		}
		fmt.Fprintln(f.answers, err)
	}
	for _, dsn := range []string{
		"postgres://stoker:" + password + "@127.0.0.1:1/stoker?connect_timeout=1", "postgres://stoker:" + password + "@127.0.0.1:none/stoker",
		"host=127.0.0.1 port=1 user=stoker password=" + password + " connect_timeout=1", "host=127.0.0.1 port=none password=" + password,
	} {
		c := f.b.Config
		c.Storage = server.StorageConfig{Postgres: dsn}
		ctx, cancel := context.WithTimeout(f.t.Context(), 3*time.Second)
		_, err := server.New(ctx, c, slog.New(slog.NewTextHandler(f.answers, &slog.HandlerOptions{Level: slog.Level(-100)})))
		cancel()
		if err == nil {
			f.t.Fatal("there is no such database")
		}
		fmt.Fprintln(f.answers, err)
	}
	c := f.b.Config
	c.EncryptionKeyFile = filepath.Join(f.t.TempDir(), "key")
	wantOK(f.t, os.WriteFile(c.EncryptionKeyFile, []byte(f.secret("malformed encryption key", "canary-of-no-length")), 0o600))
	_, err := server.New(f.t.Context(), c, slog.New(slog.DiscardHandler))
	if err == nil {
		f.t.Fatal("a malformed key was taken")
	}
	fmt.Fprintln(f.answers, err)
}
