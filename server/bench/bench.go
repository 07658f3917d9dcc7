package bench

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/stokerd/stoker/server/bench/internal/fleet"
	"github.com/stokerd/stoker/server/bench/internal/process"
	"github.com/stokerd/stoker/server/bench/internal/site"
)

// Options say what to measure.
type Options struct {
	// Modes are names of Modes.
	Modes []string
	// Agents is how many, Rounds how often what varies is measured: the median
	// counts.
	Agents, Rounds int
	// Dir takes everything that is written, in a new directory below it;
	// empty: the system's place for temporary files. It is removed at the end
	// unless Keep is set.
	Dir  string
	Keep bool
	// Profiles is a directory for processor and heap profiles of the broker,
	// one of each mode that has them; empty: none are made, and nothing is
	// slowed down by them.
	Profiles string
	// Child says how to run this program as a child: arguments after the
	// program's path.
	Child func(kind, argument string, instant bool) []string
	// Progress gets a line for each thing that begins.
	Progress io.Writer
	// Postgres is the connection string of an empty database for what needs
	// one. Empty: a server is started if one is installed.
	Postgres string
	// Lifetime is that of credentials where hours are compressed; Soak is how
	// long that mode lasts.
	Lifetime, Soak time.Duration
}

// mode is one sort of measurement.
type mode struct {
	name, help string
	run        func(*bench, context.Context) error
	// alone: it makes a site of its own.
	alone bool
}

// modes are in the order in which they run. Those that share a site lean on
// what the ones before left connected and warm; each establishes what it needs.
var modes = []mode{
	{name: "issue", help: "connect all agents for the first time", run: (*bench).issue},
	{name: "hold", help: "memory of a stream that is open and idle", run: (*bench).hold},
	{name: "storm", help: "all reconnect with a token and what they hold", run: (*bench).storm},
	{name: "unary", help: "GetCredentials while the credential is warm", run: (*bench).unary},
	{name: "push", help: "all are renewed at once, without the STS call", run: (*bench).push},
	{name: "revoke", help: "the tenant of all is disabled", run: (*bench).revoke},
	{name: "restart", help: "kill -9, and all come back", run: (*bench).restart, alone: true},
	{name: "outage", help: "no STS for two thirds of a lifetime, then a tenth of its quota", run: (*bench).outage, alone: true},
	{name: "failover", help: "rolling restart of three replicas on PostgreSQL, and the death of one", run: (*bench).failover, alone: true},
	{name: "supply", help: "one broker keeps all supplied for a compressed hour", run: (*bench).supply, alone: true},
	{name: "fleet", help: "the same with five brokers on one PostgreSQL; give --agents 80000", run: (*bench).fleet, alone: true},
	{name: "soak", help: "everything that goes wrong in a year, mixed, and the history of it checked", run: (*bench).soak, alone: true},
}

// Modes lists the names of all modes with what each does.
func Modes() (names, help []string) {
	for _, m := range modes {
		names, help = append(names, m.name), append(help, m.help)
	}
	return names, help
}

// bench is one run.
type bench struct {
	Options
	report  *Report
	program string
	dir     string

	// What the modes that share a site use.
	site   *site.Site
	agents []fleet.Identity
	// held is what the agents hold, so that a new fleet of them goes on.
	held                []fleet.Held
	welcome, credential []byte
	stoker, bare        *stand
}

// Run measures and gives the report. What was measured before an error is in
// the report as well.
func Run(ctx context.Context, o Options) (_ *Report, err error) {
	for _, name := range o.Modes {
		if !slices.ContainsFunc(modes, func(m mode) bool { return m.name == name }) {
			return nil, fmt.Errorf("no mode is called %q", name)
		}
	}
	if o.Agents < 1 || o.Rounds < 1 {
		return nil, errors.New("at least one agent and one round are needed")
	}
	b := &bench{Options: o}
	if b.program, err = os.Executable(); err != nil {
		return nil, err
	}
	if b.dir, err = os.MkdirTemp(o.Dir, "stoker-bench-"); err != nil {
		return nil, err
	}
	if !o.Keep {
		defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	}
	began := time.Now()
	b.report = &Report{Machine: machine(), Began: began.UTC().Format(time.RFC3339)}
	defer func() { b.report.Took = time.Since(began).Seconds() }()
	defer func() {
		err = errors.Join(err, b.leave(&b.stoker), b.leave(&b.bare))
		if b.site != nil {
			err = errors.Join(err, b.site.Close())
		}
	}()
	for _, m := range modes {
		if !slices.Contains(o.Modes, m.name) {
			continue
		}
		b.say("%s: %s", m.name, m.help)
		if err := b.prepare(ctx, m); err != nil {
			return b.report, err
		}
		if err := m.run(b, ctx); err != nil {
			return b.report, fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return b.report, nil
}

// prepare makes the shared site for the modes that share one, and clears the
// machine for the others.
func (b *bench) prepare(ctx context.Context, m mode) error {
	if !m.alone {
		return b.share(ctx)
	}
	return errors.Join(b.leave(&b.stoker), b.leave(&b.bare))
}

func machine() Machine {
	m := Machine{System: runtime.GOOS + "/" + runtime.GOARCH + " " + runtime.Version(), Cores: runtime.GOMAXPROCS(0)}
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		_, _ = fmt.Sscan(string(text), &m.Load)
	}
	return m
}

func (b *bench) say(format string, args ...any) {
	_, _ = fmt.Fprintf(b.Progress, time.Now().Format(time.TimeOnly)+"  "+format+"\n", args...)
}

// tenant is the one of the agents that share a site.
const tenant = "bench"

// plenty is an STS budget that nothing waits for.
const plenty = 10000

// share makes the site that several modes share.
func (b *bench) share(ctx context.Context) error {
	if b.site != nil {
		return nil
	}
	b.say("enrolling %d agents", b.Agents)
	made, agents, err := b.build(ctx, "shared", site.Config{Rate: plenty, Groups: []site.Group{{Tenant: tenant, Agents: b.Agents, Lifetime: time.Hour}}})
	b.site, b.agents = made, agents
	return err
}

// build makes a site in a directory of its own.
func (b *bench) build(ctx context.Context, name string, c site.Config) (*site.Site, []fleet.Identity, error) {
	c.Dir = filepath.Join(b.dir, name)
	if err := os.Mkdir(c.Dir, 0o700); err != nil {
		return nil, nil, err
	}
	made, err := site.New(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	agents := make([]fleet.Identity, len(made.Agents))
	for i, a := range made.Agents {
		agents[i] = identityOf(made, a)
	}
	return made, agents, nil
}

// identityOf is what a fleet must know of an agent.
func identityOf(s *site.Site, a site.Agent) fleet.Identity {
	return fleet.Identity{
		TLS: s.ClientTLS(a.Certificate), Token: a.Token, Source: a.Source, Group: a.Group, Serial: a.Serial, CertificateEnd: a.CertificateEnd,
	}
}

// start starts a broker of a site.
func (b *bench) start(ctx context.Context, s *site.Site, name, listen string, instant bool) (*process.Process, error) {
	config, err := s.Write(name, listen)
	if err != nil {
		return nil, err
	}
	return process.Start(ctx, process.Spec{
		Program: b.program, Args: b.Child("broker", config, instant),
		Environment: append(environment(), s.Environment()...), Log: filepath.Join(s.Dir, name+".log"),
	})
}

// startAll starts n brokers of a site, and gives their addresses in the same
// order. If one does not start, none is left.
func (b *bench) startAll(ctx context.Context, s *site.Site, n int) (brokers running, addresses []string, err error) {
	for i := range n {
		broker, err := b.start(ctx, s, replica(i), "127.0.0.1:0", false)
		if err != nil {
			return nil, nil, errors.Join(err, brokers.kill())
		}
		brokers, addresses = append(brokers, broker), append(addresses, broker.Address)
	}
	return brokers, addresses, nil
}

// replica is the name of the broker with that index.
func replica(i int) string { return fmt.Sprint("broker-", i) }

// environment is this program's without what would change a broker.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(e string) bool {
		return strings.HasPrefix(e, "AWS_") || strings.HasPrefix(e, "STOKER_")
	})
}

// startBare starts bare grpc-go that sends what the broker sent.
func (b *bench) startBare(ctx context.Context) (*process.Process, error) {
	dir := b.site.Dir
	key, err := x509.MarshalPKCS8PrivateKey(b.site.Server.PrivateKey)
	if err != nil {
		return nil, err
	}
	encode := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	for name, content := range map[string][]byte{
		bareKey: encode("PRIVATE KEY", key), bareCertificate: encode("CERTIFICATE", b.site.Server.Certificate[0]),
		bareClients: b.site.Authority, bareWelcome: b.welcome, bareCredential: b.credential,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return nil, err
		}
	}
	return process.Start(ctx, process.Spec{
		Program: b.program, Args: b.Child("bare", dir, false), Environment: environment(), Log: filepath.Join(dir, "bare.log"),
	})
}

// gather makes a fleet of the shared site's agents, with what they hold.
func (b *bench) gather(to *process.Process) (*fleet.Fleet, error) {
	f, err := fleet.New(fleet.Options{Agents: b.agents, Brokers: []string{to.Address}})
	if err == nil && b.held != nil {
		f.Hold(b.held)
	}
	return f, err
}

// stopLimit bounds the end of a child or a fleet, far above a broker's drain
// window.
const stopLimit = 2 * time.Minute

// stop ends a child; its streams are gone by then, or it takes its drain window.
func stop(p *process.Process) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
	defer cancel()
	return p.Stop(ctx)
}

func closeFleet(f *fleet.Fleet) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
	defer cancel()
	return f.Close(ctx)
}

// operatorTLS is the operator's.
func operatorTLS(s *site.Site) *tls.Config {
	c := s.ClientTLS(s.Operator)
	c.NextProtos = nil // grpc sets it
	return c
}
