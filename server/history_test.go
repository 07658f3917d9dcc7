package server_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server"
	"github.com/stokerd/stoker/server/internal/brokertest"
	"github.com/stokerd/stoker/server/internal/history"
	"github.com/stokerd/stoker/server/internal/issuer/devsts"
	"github.com/stokerd/stoker/server/internal/pki"
)

// historySeed repeats the choices of an earlier run: each party draws from its
// own source, so that they do not depend on who comes first.
const historySeed = "STOKER_TEST_SEED"

const (
	historyTenants = 3
	historyAgents  = 2 // of each tenant; two players each
	historyGrants  = 2 // of each tenant
	// A history goes on for so long, and until enough has happened, which on a
	// busy machine takes longer.
	historyRuns = 18 * time.Second
	historyEnds = 90 * time.Second
	// historyPrompt is a second as promised. The machine is busy on purpose.
	historyPrompt = time.Second
)

// world is what a history happens in.
type world struct {
	b         *brokertest.Broker
	addr      string
	authority *pki.Authority
	trust     *tls.Config
	seed      uint64
	begun     time.Time
	over      atomic.Bool

	mu      sync.Mutex
	history history.History
	streams int
	// serials are the certificates in use, by tenant.
	serials map[string][]string
	// stops are the times when the broker was away or about to be.
	stops []stop
	log   []string
}

type stop struct{ begun, ended time.Time }

// note changes the history.
func (w *world) note(fn func(*history.History)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fn(&w.history)
}

// say keeps what is printed if the test fails.
func (w *world) say(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, time.Now().Format("05.000 ")+fmt.Sprintf(format, args...))
}

// enough says whether the history may end.
func (w *world) enough() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	took, h := time.Since(w.begun), &w.history
	_, ended := h.SlowestEnd()
	return took > historyEnds || took > historyRuns && len(h.Streams) >= 50 && len(h.Received) >= 100 && len(h.Cuts) >= 20 && ended >= 5
}

// stopping says whether the broker was being restarted at the moment.
func (w *world) stopping(at time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.stops {
		if !at.Before(s.begun) && (s.ended.IsZero() || at.Before(s.ended.Add(time.Second))) {
			return true
		}
	}
	return false
}

func (w *world) draw(party string) *rand.Rand {
	sum := w.seed
	for _, c := range []byte(party) {
		sum = sum*1099511628211 + uint64(c)
	}
	return rand.New(rand.NewPCG(w.seed, sum))
}

// dial connects with a certificate, and tries again quickly.
func (w *world) dial(cert tls.Certificate) (*grpc.ClientConn, error) {
	config := w.trust.Clone()
	config.Certificates = []tls.Certificate{cert}
	return grpc.NewClient(w.addr, grpc.WithTransportCredentials(credentials.NewTLS(config)), grpc.WithConnectParams(grpc.ConnectParams{
		Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, Jitter: 0.2, MaxDelay: 200 * time.Millisecond}, MinConnectTimeout: time.Second,
	}))
}

// Many agents of several tenants log in, stream, call, leave and come back, with
// certificates that end, while operators cut them off and let them in again,
// change and delete grants and passwords, the STS fails now and then, and the
// broker is restarted. Everything that was seen is checked against what must
// always hold.
func TestHistory(t *testing.T) {
	t.Parallel() // it waits much of the time
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv(historySeed); text != "" {
		given, err := strconv.ParseUint(text, 10, 64)
		wantOK(t, err)
		seed = given
	}
	t.Logf("%s=%d", historySeed, seed)
	w := newWorld(t, seed)
	defer func() {
		if t.Failed() {
			t.Log(strings.Join(w.log, "\n"))
		}
	}()
	tenants := w.populate(t)
	w.begun = time.Now()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	parties := sync.WaitGroup{}
	for _, tenant := range tenants {
		parties.Go(func() { newHistoryOperator(w, tenant).run(ctx) })
		for _, agent := range tenant.agents {
			for twin := range 2 {
				parties.Go(func() { newPlayer(w, tenant, agent, twin).run(ctx) })
			}
		}
	}
	calm := newCalm(w, t)
	parties.Go(calm.run)
	discarded := 0
	for range 2 {
		<-time.After(historyRuns / 3)
		discarded += w.restart(t)
	}
	for !w.enough() {
		<-time.After(50 * time.Millisecond)
	}
	w.over.Store(true)
	calm.leave()
	parties.Wait()
	discarded += scrapeDiscarded(t, w.b)
	// Calls to the STS that a stop cut off.
	w.history.Discarded = discarded + 2*len(w.stops)*historyTenants*historyAgents*historyGrants
	w.collect(t)
	w.judge(t)
	calm.judge(t)
}

func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	draws := sync.Mutex{}
	chance := rand.New(rand.NewPCG(seed, 1))
	b := site(t, brokertest.Options{
		Configure: func(c *server.Config) {
			c.Operations = "127.0.0.1:0"
			c.Drain = time.Second
		},
		STS: func(c *devsts.Config) {
			c.IssuedLimit = 1 << 20
			c.Random = func() float64 {
				draws.Lock()
				defer draws.Unlock()
				return chance.Float64()
			}
		},
	})
	for _, f := range []devsts.Fault{
		{Kind: devsts.Throttle, Probability: 0.02}, {Kind: devsts.ServerError, Probability: 0.02}, {Kind: devsts.Drop, Probability: 0.01},
		{Kind: devsts.Delay, Probability: 0.2, Delay: 50 * time.Millisecond},
	} {
		inject(t, b, f)
	}
	return &world{
		b: b, addr: b.Addr, authority: b.Authority(), trust: b.TLS(tls.Certificate{}), seed: seed, serials: map[string][]string{},
		history: history.History{Bucket: "shared-bucket", Prompt: historyPrompt},
	}
}

// company is one tenant of a history.
type company struct {
	name   string
	agents []string
	mu     sync.Mutex
	users  []person
}

// person is a user with the password of the moment, and how many there were.
type person struct {
	login, password string
	version         int
}

// user gives one of the users as of now.
func (c *company) user(n int) person {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.users[n%len(c.users)]
}

func grantName(n int) string { return fmt.Sprintf("grant-%d", n) }

// populate makes the tenants.
func (w *world) populate(t *testing.T) (tenants []*company) {
	t.Helper()
	for n := range historyTenants {
		c := &company{name: fmt.Sprintf("tenant-%d", n)}
		w.b.Tenant(c.name)
		for u := range 2 {
			login := fmt.Sprintf("user-%d", u)
			c.users = append(c.users, person{login, w.b.User(c.name, login), 1})
		}
		for a := range historyAgents {
			name := fmt.Sprintf("agent-%d", a)
			w.b.Agent(c.name, name)
			c.agents = append(c.agents, name)
		}
		for g := range historyGrants {
			prefix := fmt.Sprintf("%s/%s/", c.name, grantName(g))
			w.b.Grant(&stokerv1.Grant{
				Tenant: c.name, Name: grantName(g), Location: "main", Prefix: prefix, Access: stokerv1.Access_ACCESS_BACKUP,
			}, time.Duration(2+g)*time.Second)
			w.history.Terms = append(w.history.Terms, history.Terms{Tenant: c.name, Grant: grantName(g), Prefix: prefix, From: time.Now()})
		}
		tenants = append(tenants, c)
	}
	return tenants
}

// restart stops the broker and starts it again.
func (w *world) restart(t *testing.T) (discarded int) {
	t.Helper()
	discarded = scrapeDiscarded(t, w.b)
	w.say("restart")
	w.mu.Lock()
	w.stops = append(w.stops, stop{begun: time.Now()})
	w.mu.Unlock()
	w.b.Restart()
	w.mu.Lock()
	w.stops[len(w.stops)-1].ended = time.Now()
	w.mu.Unlock()
	w.say("restarted")
	return discarded
}

var discardedLine = regexp.MustCompile(`(?m)^stoker_credentials_total\{result="discarded"\} ([0-9]+)$`)

// scrapeDiscarded reads how many credentials the broker dropped since it began.
func scrapeDiscarded(t *testing.T, b *brokertest.Broker) int {
	t.Helper()
	answer, err := http.Get("http://" + b.Server.OperationsAddr().String() + "/metrics")
	wantOK(t, err)
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	wantOK(t, err)
	found := discardedLine.FindSubmatch(text)
	if found == nil {
		t.Fatal("no metric of discarded credentials")
	}
	n, err := strconv.Atoi(string(found[1]))
	wantOK(t, err)
	return n
}

// collect adds what the trail and the STS have.
func (w *world) collect(t *testing.T) {
	t.Helper()
	for _, event := range []string{"credential.issued", "credential.renewed"} {
		for _, r := range records(t, w.b, event, "", "") {
			w.history.Recorded = append(w.history.Recorded, history.Recorded{
				Party: history.Party{
					Tenant: r.GetTenant(), User: r.GetLogin(), Agent: r.GetAgent(), Grant: r.GetGrant(),
					Certificate: r.GetCertificateSerial(), Session: r.GetSessionId(), Credential: r.GetCredentialId(),
				},
				At: r.GetTime().AsTime(), AccessKeyID: r.GetAccessKeyId(), Expires: r.GetExpireTime().AsTime(),
			})
		}
	}
	for _, i := range w.b.STS.Issued() {
		w.history.Issued = append(w.history.Issued, history.Issued{AccessKeyID: i.AccessKeyID, At: i.IssuedAt, Policy: i.Policy})
	}
	verified, err := stokerv1.NewAuditServiceClient(w.b.Admin).Verify(t.Context(), &stokerv1.VerifyRequest{})
	if err != nil || !verified.GetIntact() || len(verified.GetChains()) < 3 {
		t.Errorf("the trail is %v, %v", verified, err)
	}
}

// judge checks the history, and that enough happened for it to mean anything.
func (w *world) judge(t *testing.T) {
	t.Helper()
	h := &w.history
	slowest, ended := h.SlowestEnd()
	t.Logf("%d streams, %d credentials received, %d recorded, %d issued by the STS (at most %d discarded), %d cut-offs; %d streams ended by them, the slowest %s after the acknowledgement",
		len(h.Streams), len(h.Received), len(h.Recorded), len(h.Issued), h.Discarded, len(h.Cuts), ended, slowest.Round(time.Millisecond))
	for i, v := range h.Check() {
		if i == 10 {
			t.Error("and more")
			break
		}
		t.Error(v)
	}
	if !w.enough() || time.Since(w.begun) > historyEnds {
		t.Error("too little happened")
	}
}

// retry repeats a change until the broker has answered it: a restart may be in
// the way. done says of an error that it was carried out before.
func (w *world) retry(ctx context.Context, do func(context.Context) error, done func(error) bool) error {
	for {
		limited, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := do(limited)
		cancel()
		if err == nil || done != nil && done(err) {
			return nil
		}
		if time.Since(w.begun) > historyEnds+10*time.Second {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}
