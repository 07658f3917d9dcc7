package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stokerd/stoker/server/internal/admission"
	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/lease"
	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/storage"
	"github.com/stokerd/stoker/server/internal/stream"
)

// Sources are read at each scrape.
type Sources struct {
	Leases       func() lease.Stats
	Streams      func() stream.Stats
	Passwords    func() authn.PoolStats
	Certificates func() []pki.Status
	Trail        func() audit.Stats
	// Connections are the listeners' by name.
	Connections func() map[string]admission.Stats
	// Ready is why the broker is not ready, or "".
	Ready func() string
	// Revocations are those that have not expired.
	Revocations func() []storage.Revocation
}

// Metrics collects. Make it with New, give Called and Committed to the parts
// that report as they go, then Attach the others.
type Metrics struct {
	sources Sources

	stsSeconds    *prometheus.HistogramVec
	packed        *prometheus.HistogramVec
	commitSeconds prometheus.Histogram
	commitRecords prometheus.Histogram
}

// New makes the histograms.
func New() *Metrics {
	return &Metrics{
		stsSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "stoker_sts_call_seconds", Help: "How long calls to the STS took, by account and result.",
			Buckets: prometheus.ExponentialBuckets(0.005, 2, 12),
		}, []string{"account", "result"}),
		packed: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "stoker_sts_packed_policy_ratio", Help: "Share of the STS's space that policy and tags took, by account.",
			Buckets: []float64{.1, .2, .3, .4, .5, .6, .7, .8, .9, 1},
		}, []string{"account"}),
		commitSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "stoker_audit_commit_seconds", Help: "How long commits of audit records took.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9),
		}),
		commitRecords: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "stoker_audit_commit_records", Help: "How many audit records a commit made durable.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 9),
		}),
	}
}

// Attach names what is read at each scrape; until then only the histograms are
// collected. It must be called before the first scrape.
func (m *Metrics) Attach(s Sources) { m.sources = s }

// Called implements lease.Observer.
func (m *Metrics) Called(account string, took time.Duration, packed int, err error) {
	result := "ok"
	if err != nil {
		result = "error"
	}
	m.stsSeconds.WithLabelValues(account, result).Observe(took.Seconds())
	if packed > 0 {
		m.packed.WithLabelValues(account).Observe(float64(packed) / 100)
	}
}

// Committed is for audit.Options.
func (m *Metrics) Committed(c audit.Commit) {
	m.commitSeconds.Observe(c.Took.Seconds())
	if c.Records > 0 {
		m.commitRecords.Observe(float64(c.Records))
	}
}

// metric is one that is read at a scrape.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func counter(name, help string, labels ...string) metric {
	return metric{prometheus.NewDesc(name, help, labels, nil), prometheus.CounterValue}
}

func gauge(name, help string, labels ...string) metric {
	return metric{prometheus.NewDesc(name, help, labels, nil), prometheus.GaugeValue}
}

var (
	ready = gauge("stoker_ready", "1 if storage, audit trail and change feed work, so that credentials can be issued.")

	leases      = gauge("stoker_leases", "Leases: combinations of agent, user and grant that the broker keeps supplied.")
	subscribed  = gauge("stoker_lease_subscriptions", "Subscriptions of streams to leases.")
	dry         = gauge("stoker_leases_dry", "Leases with a subscriber and no valid credential.")
	emptiest    = gauge("stoker_lease_emptiest_seconds", "Least life left in a credential of a lease with subscribers; negative once expired.")
	credentials = counter("stoker_credentials_total", "Credentials by what became of them.", "result")
	failures    = counter("stoker_issue_failures_total", "Attempts to issue that failed and are repeated, by cause.", "cause")
	queued      = gauge("stoker_issue_queue", "Leases that are due and wait for their STS call, by account.", "account")
	lag         = gauge("stoker_issue_lag_seconds", "How long the first of them has been due, by account.", "account")
	inFlight    = gauge("stoker_sts_calls_in_flight", "STS calls now, by account.", "account")
	budget      = gauge("stoker_sts_budget", "STS calls a second that are made at most at present, by account; less than configured after throttling.", "account")

	streams  = gauge("stoker_streams", "Open streams.")
	opened   = counter("stoker_streams_opened_total", "Streams that were opened.")
	ended    = counter("stoker_streams_ended_total", "Streams that ended, by why.", "reason")
	messages = counter("stoker_stream_messages_total", "Messages sent on streams, by kind.", "kind")

	connections = gauge("stoker_connections", "Open connections, by listener and whether they are established or in their handshake.", "listener", "state")
	admitted    = counter("stoker_connections_admitted_total", "Connections that were admitted, by listener.", "listener")
	turnedAway  = counter("stoker_connections_refused_total", "Connections that were refused or closed for a limit, by listener and cause.", "listener", "cause")

	hashing = gauge("stoker_password_hashes", "Password hashes now: running and waiting.", "state")
	hashed  = counter("stoker_password_hashes_total", "Password hashes: computed, and turned away because the queue was full.", "result")

	expires = gauge("stoker_certificate_expiry_seconds", "End of the earliest certificate in force, in Unix time, by part.", "part")
	stale   = gauge("stoker_certificate_problem", "1 if the newest version of the part's files is not in force or something is wrong with it.", "part")

	records      = counter("stoker_audit_records_total", "Audit records: durable, and failed, in whose place nothing was issued.", "result")
	waiting      = gauge("stoker_audit_queue", "Audit records that wait for their commit.")
	sinkBehind   = gauge("stoker_audit_export_behind", "Durable audit records that the export has not taken yet.")
	sinkFailures = counter("stoker_audit_export_failures_total", "Attempts to write to the audit export that failed.")
	revocations  = gauge("stoker_revocations", "Revocations whose credentials have not all expired, by how far their denial on AWS has come.", "state")
	stsDown      = gauge("stoker_sts_down", "1 if nothing answers at the account's STS and only probes are made.", "account")
)

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	m.stsSeconds.Describe(ch)
	m.packed.Describe(ch)
	m.commitSeconds.Describe(ch)
	m.commitRecords.Describe(ch)
	for _, d := range []metric{
		ready, leases, subscribed, dry, emptiest, credentials, failures, queued, lag, inFlight, budget,
		streams, opened, ended, messages, connections, admitted, turnedAway, hashing, hashed, expires, stale,
		records, waiting, sinkBehind, sinkFailures, stsDown, revocations,
	} {
		ch <- d.desc
	}
}

// emit sends values of one scrape.
type emit chan<- prometheus.Metric

func (e emit) send(m metric, value float64, labels ...string) {
	e <- prometheus.MustNewConstMetric(m.desc, m.kind, value, labels...)
}

func (e emit) truth(m metric, yes bool, labels ...string) {
	value := 0.0
	if yes {
		value = 1
	}
	e.send(m, value, labels...)
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.stsSeconds.Collect(ch)
	m.packed.Collect(ch)
	m.commitSeconds.Collect(ch)
	m.commitRecords.Collect(ch)
	if m.sources.Leases == nil {
		return
	}
	e := emit(ch)
	e.truth(ready, m.sources.Ready() == "")
	e.leases(m.sources.Leases())
	e.streams(m.sources.Streams())
	for listener, s := range m.sources.Connections() {
		e.send(connections, float64(s.Open-s.Handshakes), listener, "established")
		e.send(connections, float64(s.Handshakes), listener, "handshake")
		e.send(admitted, float64(s.Admitted), listener)
		for cause, n := range s.Refused {
			e.send(turnedAway, float64(n), listener, string(cause))
		}
	}
	pool := m.sources.Passwords()
	e.send(hashing, float64(pool.Running), "running")
	e.send(hashing, float64(pool.Waiting), "waiting")
	e.send(hashed, float64(pool.Done), "computed")
	e.send(hashed, float64(pool.Shed), "shed")
	for _, s := range m.sources.Certificates() {
		if !s.Expires.IsZero() {
			e.send(expires, float64(s.Expires.Unix()), s.Name)
		}
		e.truth(stale, s.Err != nil, s.Name)
	}
	e.revocations(m.sources.Revocations())
	trail := m.sources.Trail()
	e.send(records, float64(trail.Records), "durable")
	e.send(records, float64(trail.Failed), "failed")
	e.send(waiting, float64(trail.Queued))
	e.send(sinkBehind, float64(trail.Sink.Behind))
	e.send(sinkFailures, float64(trail.Sink.Failures))
}

// revocations counts by state; a state without any has a zero, so that an
// alert on it resolves.
func (e emit) revocations(all []storage.Revocation) {
	count := map[storage.RevocationState]int{
		storage.RevocationLocal: 0, storage.RevocationPending: 0, storage.RevocationApplied: 0, storage.RevocationFailed: 0,
	}
	for _, r := range all {
		count[r.State]++
	}
	for state, n := range count {
		e.send(revocations, float64(n), string(state))
	}
}

func (e emit) leases(s lease.Stats) {
	e.send(leases, float64(s.Leases))
	e.send(subscribed, float64(s.Subscriptions))
	e.send(dry, float64(s.Dry))
	if s.HasCredential {
		e.send(emptiest, s.Emptiest.Seconds())
	}
	for result, n := range map[string]uint64{
		"issued": s.Issued, "renewed": s.Renewed, "resumed": s.Resumed, "not_resumed": s.NotResumed, "warm": s.Warm,
		"refused": s.Refused, "refused_by_sts": s.RefusedBySTS, "discarded": s.Discarded, "rejected_by_s3": s.Rejected,
	} {
		e.send(credentials, float64(n), result)
	}
	for cause, n := range map[string]uint64{
		"sts_throttled": s.Throttled, "sts_unavailable": s.STSUnavailable, "audit_unavailable": s.AuditUnavailable,
		"storage_unavailable": s.StorageUnavailable, "other": s.OtherFailures,
	} {
		e.send(failures, float64(n), cause)
	}
	for _, a := range s.Accounts {
		e.send(queued, float64(a.Due), a.Name)
		e.send(lag, a.Lag.Seconds(), a.Name)
		e.send(inFlight, float64(a.InFlight), a.Name)
		e.send(budget, a.Rate, a.Name)
		e.truth(stsDown, a.Down, a.Name)
	}
}

func (e emit) streams(s stream.Stats) {
	e.send(streams, float64(s.Open))
	e.send(opened, float64(s.Opened))
	for why, n := range s.Ended {
		e.send(ended, float64(n), why)
	}
	for kind, n := range map[string]int64{
		"welcome": s.Welcomes, "credential": s.Credentials, "problem": s.Problems, "revocation": s.Revocations,
		"reconnect": s.Reconnects, "heartbeat": s.Heartbeats,
	} {
		e.send(messages, float64(n), kind)
	}
}
