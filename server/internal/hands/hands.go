package hands

import (
	"context"
	"sync/atomic"
	"time"
)

// restEvery is how often goroutines without a job are sent away. Those that a
// crowd of jobs took must not stay for as long as a few jobs come; and to make a
// few anew every second costs nothing.
const restEvery = time.Second

// Pool does jobs of one kind. A job never waits for another: one that blocks
// holds up its own goroutine alone, and there are as many as there are jobs at
// once. Its methods are safe for concurrent use.
type Pool[J any] struct {
	do   func(J)
	jobs chan J
	// leave sends goroutines without a job away when it closes; nil: none is
	// kept.
	leave atomic.Pointer[chan struct{}]
}

// New makes a pool that does its jobs by do. It keeps no goroutine until Keep.
func New[J any](do func(J)) *Pool[J] { return &Pool[J]{do: do, jobs: make(chan J)} }

// Do has the job done, like the go statement: it returns at once.
func (p *Pool[J]) Do(job J) {
	select {
	case p.jobs <- job:
	default:
		go p.work(job)
	}
}

// work does the job, and others for as long as they come.
func (p *Pool[J]) work(job J) {
	for {
		p.do(job)
		leave := p.leave.Load()
		if leave == nil {
			return
		}
		select {
		case job = <-p.jobs:
		case <-*leave:
			return
		}
	}
}

// Keep has goroutines kept for a moment, until ctx ends. Jobs are done
// before and after that as well. It is called once.
func (p *Pool[J]) Keep(ctx context.Context) {
	rest := time.NewTicker(restEvery)
	defer rest.Stop()
	p.swap(true)
	for {
		select {
		case <-rest.C:
			p.swap(true)
		case <-ctx.Done():
			p.swap(false)
			return
		}
	}
}

// swap sends the goroutines without a job away, and says whether others are to
// be kept from now on.
func (p *Pool[J]) swap(keep bool) {
	var next *chan struct{}
	if keep {
		next = new(chan struct{})
		*next = make(chan struct{})
	}
	if before := p.leave.Swap(next); before != nil {
		close(*before)
	}
}
