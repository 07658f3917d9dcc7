package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/storage"
)

const (
	// unaryGrace is how long calls other than streams get to end, once the
	// streams are gone.
	unaryGrace = time.Second
	// tracingLimit bounds sending the last spans.
	tracingLimit = 2 * time.Second
	// closeLimit bounds flushing the audit trail at the end.
	closeLimit = 10 * time.Second
	// tidyInterval is how often what is past its time is forgotten.
	tidyInterval = time.Hour
)

// Run serves until ctx ends or a part fails, then stops in order: health says
// NOT_SERVING; streams are told when to reconnect; calls end, at the latest
// when the drain window is over; the audit trail is flushed; storage is closed.
// It must be called once.
func (s *Server) Run(ctx context.Context) error {
	saveMemory()
	takeBallast()
	// What calls lean on outlives ctx: streams are supplied until they have
	// left.
	background, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBackground()
	parts, failed := errgroup.WithContext(background)
	parts.Go(func() error { return s.directory.Run(failed) })
	parts.Go(func() error { return s.keyring.Run(failed) })
	parts.Go(func() error { return s.who.Run(failed) })
	parts.Go(func() error { return s.reloader.Run(failed) })
	parts.Go(func() error { return s.leases.Run(failed) })
	for _, keys := range s.rotating {
		parts.Go(func() error { return keys.Run(failed) })
	}
	parts.Go(func() error { return s.streams.Run(failed) })
	parts.Go(func() error { return s.revoker.Run(failed) })
	parts.Go(func() error { s.ready.run(failed); return nil })
	parts.Go(func() error { s.pulse.run(failed); return nil })
	parts.Go(func() error { s.tidy(failed); return nil })
	if s.opsAt != nil {
		ops := operations(s.registry, s.ready)
		parts.Go(func() error { return serveOperations(failed, ops, s.opsAt) })
	}
	parts.Go(s.main.serve)
	if s.enroll.server != nil {
		parts.Go(s.enroll.serve)
	}
	if _, err := s.trail.Append(background, storage.AuditRecord{Event: string(audit.BrokerStarted), Actor: "broker"}, audit.NoFence); err != nil {
		s.log.ErrorContext(ctx, "start not recorded", "error", err)
	}
	s.log.InfoContext(ctx, "serving", "address", s.Addr().String())

	select {
	case <-ctx.Done():
	case <-failed.Done():
		// A part failed; parts.Wait says which.
	}
	s.drain()
	stopBackground()
	err := parts.Wait()
	if _, auditErr := s.trail.Append(context.WithoutCancel(ctx), storage.AuditRecord{Event: string(audit.BrokerStopped), Actor: "broker"}, audit.NoFence); auditErr != nil {
		s.log.Error("stop not recorded", "error", auditErr)
	}
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	err = errors.Join(err, s.close(context.WithoutCancel(ctx)))
	s.log.Info("stopped")
	return err
}

// serve serves until the server is stopped.
func (e endpoint) serve() error {
	if err := e.server.Serve(e.listener); !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

// drain lets calls end, at the latest at the end of the window.
func (s *Server) drain() {
	s.ready.stop()
	close(s.stopping)
	s.log.Info("stopping", "streams", s.streams.Stats().Open, "window", s.config.Drain)
	s.streams.Drain(s.config.Drain)
	limited, cancel := context.WithTimeout(context.Background(), s.config.Drain)
	defer cancel()
	if err := s.streams.Wait(limited); err != nil {
		s.log.Warn("streams cut off at the end of the drain window", "streams", s.streams.Stats().Open)
	}
	graceful := make(chan struct{})
	go func() {
		defer close(graceful)
		s.main.server.GracefulStop()
	}()
	// Watches of health and reflection never end by themselves.
	select {
	case <-graceful:
	case <-time.After(unaryGrace):
	}
	s.main.server.Stop()
	<-graceful
	if s.enroll.server != nil {
		s.enroll.server.Stop()
	}
}

// tidy forgets what is past its time, until ctx ends: used and expired join
// tokens a day after their end, and audit records past their retention.
func (s *Server) tidy(ctx context.Context) {
	tick := time.NewTicker(tidyInterval)
	defer tick.Stop()
	for {
		if _, err := s.store.SweepJoinTokens(ctx, time.Now().Add(-24*time.Hour)); err != nil && ctx.Err() == nil {
			s.log.ErrorContext(ctx, "expired join tokens not forgotten", "error", err)
		}
		if keep := s.config.Audit.Retention; keep > 0 {
			if _, err := s.trail.Trim(ctx, time.Now().Add(-keep)); err != nil && ctx.Err() == nil {
				s.log.ErrorContext(ctx, "audit trail not trimmed", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// close releases what New opened, in the reverse order, as far as it came.
func (s *Server) close(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, closeLimit)
	defer cancel()
	var errs []error
	for _, e := range []endpoint{s.main, s.enroll} {
		if e.server != nil {
			e.server.Stop()
		}
		if e.listener != nil {
			// Closed already where the server has served on it.
			_ = e.listener.Close()
		}
	}
	if s.opsAt != nil {
		_ = s.opsAt.Close()
	}
	s.endTracing(ctx)
	for _, sts := range s.issuers {
		sts.Close()
	}
	for _, iam := range s.iams {
		iam.Close()
	}
	if s.desk != nil {
		s.desk.Close(limited)
	}
	if s.trail != nil {
		if err := s.trail.Close(limited); err != nil {
			errs = append(errs, fmt.Errorf("closing the audit trail: %w", err))
		}
	}
	if s.sink != nil {
		errs = append(errs, s.sink.Close())
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	return errors.Join(errs...)
}
