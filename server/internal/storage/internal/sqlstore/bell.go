package sqlstore

import (
	"context"
	"sync"
)

// Bell tells listeners that something changed. Values coalesce: a listener
// that is busy finds one value, however often the bell rang. The zero value is
// ready to use.
type Bell struct {
	mu        sync.Mutex
	listeners map[chan struct{}]func() bool // with what stops the watch on the listener's context
	closed    bool
}

// Listen returns a channel that gets a value when the bell rings and closes
// when ctx ends or the bell is closed.
func (b *Bell) Listen(ctx context.Context) <-chan struct{} {
	ch := make(chan struct{}, 1)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		close(ch)
		return ch
	}
	if b.listeners == nil {
		b.listeners = map[chan struct{}]func() bool{}
	}
	b.listeners[ch] = context.AfterFunc(ctx, func() { b.forget(ch) })
	return ch
}

// Ring never blocks.
func (b *Bell) Ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for ch := range b.listeners {
		select {
		case ch <- struct{}{}:
		default: // it has a value that it has not taken yet
		}
	}
}

// Close ends all listening.
func (b *Bell) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for ch, stop := range b.listeners {
		stop()
		delete(b.listeners, ch)
		close(ch)
	}
}

func (b *Bell) forget(ch chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, listening := b.listeners[ch]; listening {
		delete(b.listeners, ch)
		close(ch)
	}
}
