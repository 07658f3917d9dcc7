package fleet

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/bench/internal/light"
)

// Calls is what came of unary calls.
type Calls struct {
	Made int
	// Took is from the first call to the last answer.
	Took   time.Duration
	Spread Spread
}

// caller makes one call after the other on its own connection, the next one
// from the answer to the last. It implements light.Handler.
type caller struct {
	conn     *light.Conn
	broker   *broker
	request  []byte
	metadata []light.Header
	left     *atomic.Int64

	began time.Time
	got   bool
	times []time.Duration
	done  chan error
}

// Call has the first agents make GetCredentials calls, each on a connection of
// its own, one after the other, until there were so many in all. The
// connections are made before the first call.
func (f *Fleet) Call(ctx context.Context, callers, calls int) (Calls, error) {
	request, err := proto.Marshal(&stokerv1.GetCredentialsRequest{})
	if err != nil {
		return Calls{}, err
	}
	left := &atomic.Int64{}
	all := make([]*caller, min(callers, len(f.agents)))
	defer func() {
		for _, c := range all {
			if c != nil && c.conn != nil {
				c.conn.Close()
				c.broker.linked.Add(-1)
			}
		}
	}()
	for i := range all {
		as := f.agents[i].who()
		c := &caller{request: request, metadata: append(as.metadata(), timeLimit), left: left, done: make(chan error, 2)}
		all[i] = c
		if c.conn, c.broker, err = f.agents[i].dial(ctx, as, false, c); err != nil {
			return Calls{}, err
		}
	}
	left.Store(int64(calls))
	began := time.Now()
	var running sync.WaitGroup
	for _, c := range all {
		running.Go(c.next)
	}
	running.Wait()
	var times []time.Duration
	for _, c := range all {
		select {
		case err := <-c.done:
			if err != nil {
				return Calls{}, err
			}
		case <-ctx.Done():
			return Calls{}, ctx.Err()
		}
		times = append(times, c.times...)
	}
	return Calls{Made: len(times), Took: time.Since(began), Spread: SpreadOf(times)}, nil
}

// timeLimit is what agents tell of how long they wait for a unary call.
var timeLimit = light.Header{Name: "grpc-timeout", Value: "20S"}

// next makes the next call if there is one to be made.
func (c *caller) next() {
	if c.left.Add(-1) < 0 {
		c.done <- nil
		return
	}
	c.began, c.got = time.Now(), false
	if _, err := c.conn.Begin(unaryPath, c.metadata, c.request, true); err != nil {
		c.done <- err
	}
}

// Message implements light.Handler.
func (c *caller) Message(uint32, []byte) { c.got = true }

// Ended implements light.Handler.
func (c *caller) Ended(_ uint32, s light.Status) {
	if s.Code != 0 || !c.got {
		why, _ := explain(s)
		c.done <- fmt.Errorf("GetCredentials: %s", why)
		return
	}
	c.times = append(c.times, time.Since(c.began))
	c.next()
}

// Closed implements light.Handler.
func (c *caller) Closed(err error) {
	select {
	case c.done <- errors.Join(errors.New("the broker closed the connection"), err):
	default:
	}
}
