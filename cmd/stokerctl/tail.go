package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/stokerd/stoker/internal/atomicfile"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

const (
	// silence is how long a watch may say nothing: the broker speaks every 15
	// seconds.
	silence = time.Minute
	// firstPause and lastPause bound the wait before a watch that broke off is
	// opened again.
	firstPause, lastPause = 200 * time.Millisecond, 10 * time.Second
)

// errSilent is what a watch ends with that says nothing.
var errSilent = status.Errorf(codes.Unavailable, "it has said nothing for %v", silence)

type auditTail struct {
	Since time.Duration `default:"0s" help:"Begin with records this old. Default: with what happens from now on."`
	Place string        `placeholder:"FILE" help:"Keep the place in this file. Where the file is there, go on from it."`
	selection
}

// Run follows the trail through broken connections and restarted brokers: it
// goes on at the last cursor.
func (c *auditTail) Run(a *api) error {
	w, err := c.watch()
	if err != nil {
		return err
	}
	pause := firstPause
	for {
		began := time.Now()
		err := w.follow(a, c.Place)
		switch {
		case a.ctx.Err() != nil:
			return nil // interrupted, as intended
		case explain(err).code != exitUnavailable:
			return err
		}
		a.report(err)
		if time.Since(began) > silence {
			pause = firstPause
		}
		select {
		case <-time.After(pause):
		case <-a.ctx.Done():
			return nil
		}
		pause = min(2*pause, lastPause)
	}
}

// watching is where a tail stands.
type watching struct{ request *stokerv1.WatchEventsRequest }

func (c *auditTail) watch() (watching, error) {
	w := watching{&stokerv1.WatchEventsRequest{
		Events: c.Event, Tenant: c.Tenant, Login: c.Login, Agent: c.Agent, Grant: c.Grant,
	}}
	if c.Since < 0 {
		return w, usagef("--since: %v is not in the past; give a duration such as 1h", c.Since)
	}
	if c.Since > 0 {
		w.request.SinceTime = timestamppb.New(time.Now().Add(-c.Since))
	}
	if c.Place == "" {
		return w, nil
	}
	text, err := os.ReadFile(c.Place)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return w, nil
	case err != nil:
		return w, usagef("--place: %v", err)
	}
	w.request.Cursor, w.request.SinceTime = strings.TrimSpace(string(text)), nil
	return w, nil
}

// follow opens a watch and prints what it tells until it ends.
func (w watching) follow(a *api, place string) error {
	ctx, cancel := context.WithCancelCause(a.ctx)
	defer cancel(nil)
	// A connection that died without a word must not look like a quiet night.
	watchdog := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer watchdog.Stop()
	stream, err := a.fleet.WatchEvents(ctx, w.request)
	for err == nil {
		var m *stokerv1.WatchEventsResponse
		if m, err = stream.Recv(); err == nil {
			watchdog.Reset(silence)
			err = w.print(a, m, place)
		}
	}
	if errors.Is(context.Cause(ctx), errSilent) {
		return errSilent
	}
	return err
}

// print prints the record, if there is one, and then keeps the place: after a
// crash a record may be printed again, never left out.
func (w watching) print(a *api, m *stokerv1.WatchEventsResponse, place string) error {
	if n := m.GetTrimmedRecords(); n > 0 {
		a.say("%d records were removed by retention before they could be read", n)
	}
	if m.GetRecord() != nil {
		if err := a.printRecord(m.GetRecord()); err != nil {
			return err
		}
	}
	w.request.Cursor, w.request.SinceTime = m.GetCursor(), nil
	if place == "" {
		return nil
	}
	return atomicfile.Write(place, []byte(m.GetCursor()+"\n"), 0o600)
}
