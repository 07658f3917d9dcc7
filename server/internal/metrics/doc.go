// Package metrics turns what the broker's parts count into Prometheus metrics.
//
// It owns the names, help texts and labels, and holds no state but two
// histograms. Parts are read when Prometheus asks; no label ever holds a
// tenant, user, agent or address, so that the number of series is bounded by
// the configuration.
package metrics
