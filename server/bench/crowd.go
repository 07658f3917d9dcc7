package bench

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/stokerd/stoker/server/bench/internal/fleet"
	"github.com/stokerd/stoker/server/bench/internal/process"
	"github.com/stokerd/stoker/server/bench/internal/site"
)

// mostInProcess is how many agents one process plays: each is a descriptor.
const mostInProcess = 18_000

// roster is the file from which a child that is agents learns who it plays.
type roster struct {
	Brokers   []string
	Authority []byte
	Agents    []enrolled
}

// enrolled is one agent of a roster. The file lies in the measurement's own
// directory, and its keys are worth nothing beyond that.
type enrolled struct {
	Group            int
	Certificate, Key []byte
	Token            string
	Source           netip.Addr
}

// writeRoster writes the file for some of a site's agents.
func writeRoster(path string, s *site.Site, agents []site.Agent, brokers []string) (err error) {
	r := roster{Brokers: brokers, Authority: s.Authority, Agents: make([]enrolled, len(agents))}
	for i, a := range agents {
		key, err := x509.MarshalPKCS8PrivateKey(a.Certificate.PrivateKey)
		if err != nil {
			return err
		}
		r.Agents[i] = enrolled{Group: a.Group, Certificate: a.Certificate.Certificate[0], Key: key, Token: a.Token, Source: a.Source}
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return gob.NewEncoder(file).Encode(r)
}

// readRoster makes the fleet of a file.
func readRoster(path string) (_ *fleet.Fleet, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	var r roster
	if err := gob.NewDecoder(file).Decode(&r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(r.Authority)
	as := &site.Site{Roots: roots}
	agents := make([]fleet.Identity, len(r.Agents))
	for i, a := range r.Agents {
		key, err := x509.ParsePKCS8PrivateKey(a.Key)
		if err != nil {
			return nil, err
		}
		own, ok := key.(*ecdsa.PrivateKey)
		if !ok {
			return nil, fmt.Errorf("agent %d has a key of type %T", i, key)
		}
		agents[i] = fleet.Identity{
			TLS:   as.ClientTLS(tls.Certificate{Certificate: [][]byte{a.Certificate}, PrivateKey: own}),
			Token: a.Token, Source: a.Source, Group: a.Group,
		}
	}
	return fleet.New(fleet.Options{Agents: agents, Brokers: r.Brokers, Return: true})
}

// Agents is the whole of a child process that is agents: those of a roster.
type Agents struct {
	// File is the path of the roster.
	File string
}

// crowdReport is what a child that is agents says of itself.
type crowdReport struct {
	Connected, Dry int
	Loads          []int
	Worst          fleet.Extremes
	Stats          fleet.Stats
}

// add adds another child's.
func (r *crowdReport) add(o crowdReport) {
	r.Connected += o.Connected
	r.Dry += o.Dry
	for len(r.Loads) < len(o.Loads) {
		r.Loads = append(r.Loads, 0)
	}
	for i, n := range o.Loads {
		r.Loads[i] += n
	}
	r.Worst.Add(o.Worst)
	r.Stats.Add(o.Stats)
}

// Run plays the agents until in ends or ctx does. Beside those of every child
// it obeys the commands connect D, which connects all within the time; watch,
// which begins to look for the worst; and report.
func (a Agents) Run(ctx context.Context, in io.Reader, out io.Writer) (err error) {
	f, err := readRoster(a.File)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeFleet(f)) }()
	watched := func() fleet.Extremes { return fleet.Extremes{Least: 1} }
	defer func() { watched() }()
	return process.Obey(ctx, in, out, process.Ready{}, map[string]process.Command{
		"connect": func(ctx context.Context, over string) (string, error) {
			d, err := time.ParseDuration(over)
			if err == nil {
				err = f.ConnectOver(ctx, d)
			}
			if err == nil {
				err = f.AwaitSupplied(ctx)
			}
			return "supplied", err
		},
		"watch": func(context.Context, string) (string, error) {
			watched()
			watched = f.Watch(watchEvery)
			return "watching", nil
		},
		"report": func(context.Context, string) (string, error) {
			text, err := json.Marshal(crowdReport{
				Connected: f.Connected(), Dry: f.Dry(), Loads: f.Loads(), Worst: watched(), Stats: f.Stats(),
			})
			return string(text), err
		},
	})
}

// crowd is agents in processes of their own, as many as their descriptors take.
type crowd []*process.Process

// gatherCrowd starts the processes of a site's agents.
func (b *bench) gatherCrowd(ctx context.Context, s *site.Site, brokers []string) (_ crowd, err error) {
	var c crowd
	defer func() {
		if err != nil {
			err = errors.Join(err, running(c).kill())
		}
	}()
	processes := (len(s.Agents) + mostInProcess - 1) / mostInProcess
	each := (len(s.Agents) + processes - 1) / processes
	for i := range processes {
		name := fmt.Sprint("agents-", i)
		file := filepath.Join(s.Dir, name)
		if err := writeRoster(file, s, s.Agents[i*each:min((i+1)*each, len(s.Agents))], brokers); err != nil {
			return nil, err
		}
		started, err := process.Start(ctx, process.Spec{
			Program: b.program, Args: b.Child("agents", file, false), Environment: environment(), Log: file + ".log",
		})
		if err != nil {
			return nil, err
		}
		c = append(c, started)
	}
	return c, nil
}

// tell has all processes carry out a command.
func (c crowd) tell(ctx context.Context, command string) error {
	all, ctx := errgroup.WithContext(ctx)
	for _, p := range c {
		all.Go(func() error { _, err := p.Ask(ctx, command); return err })
	}
	return all.Wait()
}

// report sums what the processes say.
func (c crowd) report(ctx context.Context) (crowdReport, error) {
	sum := crowdReport{Worst: fleet.Extremes{Least: 1}}
	for _, p := range c {
		text, err := p.Ask(ctx, "report")
		if err != nil {
			return sum, err
		}
		var r crowdReport
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			return sum, err
		}
		sum.add(r)
	}
	return sum, nil
}

// resident sums the memory of processes.
func resident(processes []*process.Process) (int64, error) {
	sum := int64(0)
	for _, p := range processes {
		m, err := p.Memory()
		if err != nil {
			return 0, err
		}
		sum += m.Resident
	}
	return sum, nil
}
