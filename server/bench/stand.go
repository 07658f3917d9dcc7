package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/stokerd/stoker/server/bench/internal/fleet"
	"github.com/stokerd/stoker/server/bench/internal/process"
)

// stand is a server with the fleet that is its load.
type stand struct {
	server *process.Process
	fleet  *fleet.Fleet
	// instant: it is a broker whose STS answers at once.
	instant bool
}

// patience bounds each step of a measurement.
const patience = 5 * time.Minute

// broker gives the stand of a broker on the shared site, with nobody connected
// if it is a new one.
func (b *bench) broker(ctx context.Context, instant bool) (*stand, error) {
	if b.stoker != nil && b.stoker.instant == instant {
		return b.stoker, nil
	}
	if err := b.leave(&b.stoker); err != nil {
		return nil, err
	}
	server, err := b.start(ctx, b.site, "broker", "127.0.0.1:0", instant)
	if err != nil {
		return nil, err
	}
	f, err := b.gather(server)
	if err != nil {
		return nil, errors.Join(err, server.Kill())
	}
	b.stoker = &stand{server: server, fleet: f, instant: instant}
	return b.stoker, nil
}

// plain gives the stand of bare grpc-go.
func (b *bench) plain(ctx context.Context) (*stand, error) {
	if b.bare != nil {
		return b.bare, nil
	}
	if err := b.sample(ctx); err != nil {
		return nil, err
	}
	server, err := b.startBare(ctx)
	if err != nil {
		return nil, err
	}
	f, err := b.gather(server)
	if err != nil {
		return nil, errors.Join(err, server.Kill())
	}
	b.bare = &stand{server: server, fleet: f}
	return b.bare, nil
}

// sample learns what a broker sends, for bare grpc-go to send the same: a
// credential of the size of AWS's.
func (b *bench) sample(ctx context.Context) error {
	if b.welcome != nil {
		return nil
	}
	server, err := b.start(ctx, b.site, "sample", "127.0.0.1:0", true)
	if err != nil {
		return err
	}
	f, err := fleet.New(fleet.Options{Agents: b.agents[:1], Brokers: []string{server.Address}})
	if err == nil {
		wave := f.Expect(fleet.Supplied, true)
		if err = f.Connect(ctx, 1); err == nil {
			err = wave.Wait(ctx)
		}
		b.welcome, b.credential = f.Samples()
		err = errors.Join(err, closeFleet(f))
	}
	return errors.Join(err, stop(server))
}

// leave ends a stand and remembers what its agents hold.
func (b *bench) leave(s **stand) error {
	old := *s
	if old == nil {
		return nil
	}
	*s = nil
	if s == &b.stoker {
		b.held = old.fleet.Holding()
	}
	return errors.Join(closeFleet(old.fleet), stop(old.server))
}

// connectAll connects all agents and waits until each has a credential.
func (s *stand) connectAll(ctx context.Context) error {
	if err := s.fleet.Connect(ctx, s.fleet.Size()); err != nil {
		return err
	}
	if err := s.fleet.AwaitConnected(ctx, s.fleet.Size()); err != nil {
		return fmt.Errorf("%d of %d are connected: %w", s.fleet.Connected(), s.fleet.Size(), err)
	}
	return s.calm(ctx)
}

// disconnectAll disconnects all and waits until the server has noticed.
func (s *stand) disconnectAll(ctx context.Context) error {
	if err := s.fleet.Disconnect(ctx); err != nil {
		return err
	}
	return s.calm(ctx)
}

const (
	// A server is calm when it uses less than calmBase and calmStream for each
	// open stream, which is for heartbeats, in each of calmLooks looks. Of two
	// servers that do the same the slower one must be calm as well.
	calmLook   = 100 * time.Millisecond
	calmLooks  = 5
	calmBase   = 3 * time.Millisecond
	calmStream = 1500 * time.Nanosecond
)

// calm waits until the server has finished whatever it does.
func (s *stand) calm(ctx context.Context) error {
	_, err := s.rest(ctx)
	return err
}

// rest waits until the server is calm, and gives what it uses then: the share
// of a core that heartbeats and the like take.
func (s *stand) rest(ctx context.Context) (share float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(calmLook)
	defer tick.Stop()
	before, err := s.server.CPU()
	at, used, passed := time.Now(), time.Duration(0), time.Duration(0)
	for calm := 0; err == nil && calm < calmLooks; {
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("the server does not come to rest: %w", ctx.Err())
		case <-tick.C:
		}
		var now time.Duration
		now, err = s.server.CPU()
		took := time.Since(at)
		at = at.Add(took)
		// A look may come late on a busy machine.
		if float64(now-before) < float64(calmBase+calmStream*time.Duration(s.fleet.Connected()))*float64(took)/float64(calmLook) {
			calm, used, passed = calm+1, used+now-before, passed+took
		} else {
			calm, used, passed = 0, 0, 0
		}
		before = now
	}
	return float64(used) / float64(max(passed, 1)), err
}

// cost is the processor time that the server uses for the work, from its
// beginning until the server is calm again, less what it uses at rest anyway.
func (s *stand) cost(ctx context.Context, work func() error) (time.Duration, error) {
	if _, err := s.server.Ask(ctx, "collect"); err != nil {
		return 0, err
	}
	began := time.Now()
	before, err := s.server.CPU()
	if err != nil {
		return 0, err
	}
	if err := work(); err != nil {
		return 0, err
	}
	share, err := s.rest(ctx)
	if err != nil {
		return 0, err
	}
	after, err := s.server.CPU()
	return after - before - time.Duration(share*float64(time.Since(began))), err
}

// profiled is work with profiles of the broker, if they are wanted.
func (b *bench) profiled(ctx context.Context, s *stand, name string, work func() error) func() error {
	if b.Profiles == "" || s == b.bare && b.bare != nil {
		return work
	}
	return func() error {
		if _, err := s.server.Ask(ctx, "cpu-profile "+filepath.Join(b.Profiles, name+".cpu.pprof")); err != nil {
			return err
		}
		err := work()
		_, ended := s.server.Ask(ctx, "end-profile")
		return errors.Join(err, ended)
	}
}

// resident is what the server has in memory once all that is not in use is
// freed.
func (s *stand) resident(ctx context.Context) (process.Memory, string, error) {
	// Twice: what finalizers and pools keep goes with the second round.
	if _, err := s.server.Ask(ctx, "collect"); err != nil {
		return process.Memory{}, "", err
	}
	detail, err := s.server.Ask(ctx, "collect")
	if err != nil {
		return process.Memory{}, "", err
	}
	m, err := s.server.Memory()
	return m, detail, err
}

// metric sums the broker's metrics of a name whose labels contain a text.
func (s *stand) metric(ctx context.Context, name, label string) (float64, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.server.Operations+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer func() { _ = answer.Body.Close() }()
	sum := 0.0
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		series, value, _ := strings.Cut(lines.Text(), " ")
		of, labels, _ := strings.Cut(series, "{")
		if of != name || !strings.Contains(labels, label) {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, fmt.Errorf("metric %s: %w", series, err)
		}
		sum += v
	}
	return sum, lines.Err()
}

// traffic is what a broker did beside sending messages.
type traffic struct{ sts, hashes, records float64 }

func (s *stand) traffic(ctx context.Context) (t traffic, err error) {
	for _, m := range []struct {
		to          *float64
		name, label string
	}{
		{&t.sts, "stoker_sts_call_seconds_count", ""},
		{&t.hashes, "stoker_password_hashes_total", `"computed"`},
		{&t.records, "stoker_audit_records_total", `"durable"`},
	} {
		if *m.to, err = s.metric(ctx, m.name, m.label); err != nil {
			return t, err
		}
	}
	return t, nil
}
