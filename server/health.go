package server

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// healthInterval is how often readiness is looked at, and healthTimeout how
// long one look may take before it counts as a failure.
const (
	healthInterval = time.Second
	healthTimeout  = 3 * time.Second
	// startInterval is how often it is looked at during the first second.
	startInterval = 20 * time.Millisecond
)

// stopping is the problem of a broker that is about to end.
const stopping = "stopping"

// condition is one thing without which nothing can be issued.
type condition struct {
	name string
	test func(ctx context.Context) error
}

// readiness keeps the health service in step with what the broker leans on.
// STS is not among it: without it agents keep their last good credentials, and
// another replica would fare no better.
type readiness struct {
	conditions []condition
	services   []string
	health     *health.Server
	log        *slog.Logger
	// problem is why the broker is not ready; nil if it is.
	problem atomic.Pointer[string]
}

func newReadiness(log *slog.Logger, services []string, conditions ...condition) *readiness {
	r := &readiness{conditions: conditions, services: services, health: health.NewServer(), log: log}
	starting := "starting"
	r.problem.Store(&starting)
	for _, s := range append(services, "") {
		r.health.SetServingStatus(s, healthv1.HealthCheckResponse_NOT_SERVING)
	}
	return r
}

// Problem says why the broker is not ready, or "".
func (r *readiness) Problem() string {
	if p := r.problem.Load(); p != nil {
		return *p
	}
	return ""
}

// run looks at the conditions until ctx ends.
func (r *readiness) run(ctx context.Context) {
	r.start(ctx)
	tick := time.NewTicker(healthInterval)
	defer tick.Stop()
	for {
		r.set(r.look(ctx))
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// start looks often for a while, since parts that are still starting are ready
// in no time.
func (r *readiness) start(ctx context.Context) {
	limit := time.After(healthInterval)
	for {
		if r.look(ctx) == "" {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-limit:
			return
		case <-time.After(startInterval):
		}
	}
}

// look gives the first problem, or "".
func (r *readiness) look(ctx context.Context) string {
	limited, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	for _, c := range r.conditions {
		if err := c.test(limited); err != nil {
			return fmt.Sprintf("%s: %v", c.name, err)
		}
	}
	return ""
}

// set announces the state where it differs from the last. A stopping broker
// stays as it is.
func (r *readiness) set(problem string) {
	if r.Problem() == stopping {
		return
	}
	before := r.problem.Swap(&problem)
	if before != nil && *before == problem {
		return
	}
	status := healthv1.HealthCheckResponse_SERVING
	if problem != "" {
		status = healthv1.HealthCheckResponse_NOT_SERVING
		r.log.Warn("not ready", "problem", problem)
	} else {
		r.log.Info("ready")
	}
	for _, s := range append(r.services, "") {
		r.health.SetServingStatus(s, status)
	}
}

// stop announces NOT_SERVING for good.
func (r *readiness) stop() {
	why := stopping
	r.problem.Store(&why)
	r.health.Shutdown()
}
