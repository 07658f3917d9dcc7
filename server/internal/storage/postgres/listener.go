package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/stokerd/stoker/server/internal/storage/internal/sqlstore"
)

const (
	// pingEvery is how long the listening connection may be silent before it
	// is asked whether it still works, and pingTimeout how long it may take to
	// answer. A connection that was lost without a word stays unnoticed for at
	// most both.
	pingEvery   = 10 * time.Second
	pingTimeout = 5 * time.Second

	// The wait before connecting again grows from the first to the last, and
	// is drawn between half and the whole of it.
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// listener rings the bell when any replica moves the feed. It has one
// connection of its own, from the first watch to the store's end.
type listener struct {
	config *pgx.ConnConfig
	bell   *sqlstore.Bell
	log    *slog.Logger
	text   func(error) string
	// These are the constants; tests that wait for them shorten them.
	pingEvery, pingTimeout time.Duration

	ctx    context.Context // ends with the store
	cancel context.CancelFunc
	once   sync.Once
	done   sync.WaitGroup
}

func newListener(config *pgx.ConnConfig, bell *sqlstore.Bell, log *slog.Logger, text func(error) string) *listener {
	l := &listener{config: config, bell: bell, log: log, text: text, pingEvery: pingEvery, pingTimeout: pingTimeout}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// start begins listening, the first time that it is called.
func (l *listener) start() {
	l.once.Do(func() { l.done.Go(l.run) })
}

// stop ends listening, also a start that comes later.
func (l *listener) stop() {
	l.cancel()
	l.once.Do(func() {})
	l.done.Wait()
}

// run listens until the end of the store, over connections that break.
func (l *listener) run() {
	wait := firstRetry
	for {
		connected, err := l.listen()
		if l.ctx.Err() != nil {
			return
		}
		if connected {
			wait = firstRetry
		}
		l.log.WarnContext(l.ctx, "not listening for changes of other replicas; connecting again", "error", l.text(err))
		select {
		case <-time.After(wait/2 + rand.N(wait/2)):
		case <-l.ctx.Done():
			return
		}
		wait = min(2*wait, lastRetry)
	}
}

// listen rings the bell for each notification until the connection breaks. It
// first rings once, for what was missed while there was no connection.
func (l *listener) listen() (connected bool, err error) {
	conn, err := pgx.ConnectConfig(l.ctx, l.config)
	if err != nil {
		return false, err
	}
	defer func() {
		// The connection is broken or the store closes: this is a courtesy to
		// the server, and must not take long.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	if _, err := conn.Exec(l.ctx, "LISTEN "+feedChannel); err != nil {
		return false, err
	}
	l.bell.Ring()
	for {
		if err := l.wait(conn); err != nil {
			return true, err
		}
	}
}

// wait rings the bell for the next notification, or makes sure that the
// connection works where none comes.
func (l *listener) wait(conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(l.ctx, l.pingEvery)
	defer cancel()
	_, err := conn.WaitForNotification(ctx)
	switch {
	case err == nil:
		l.bell.Ring()
		return nil
	case l.ctx.Err() != nil:
		return l.ctx.Err()
	case !errors.Is(err, context.DeadlineExceeded):
		return err
	}
	ctx, cancel = context.WithTimeout(l.ctx, l.pingTimeout)
	defer cancel()
	if err := conn.Ping(ctx); err != nil {
		return fmt.Errorf("the connection was lost without a word: %w", err)
	}
	return nil
}
