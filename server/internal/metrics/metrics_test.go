package metrics_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/stokerd/stoker/internal/docpage"
	"github.com/stokerd/stoker/server/internal/admission"
	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/lease"
	"github.com/stokerd/stoker/server/internal/metrics"
	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/storage"
	"github.com/stokerd/stoker/server/internal/stream"
)

// full is a Metrics whose every metric has a value.
func full() *metrics.Metrics {
	m := metrics.New()
	m.Called("main", 30*time.Millisecond, 17, nil)
	m.Called("main", time.Second, 0, errors.New("away"))
	m.Committed(audit.Commit{Took: time.Millisecond, Records: 3})
	m.Attach(metrics.Sources{
		Ready: func() string { return "storage: away" },
		Leases: func() lease.Stats {
			return lease.Stats{
				Counts: lease.Counts{Issued: 5, Renewed: 7}, Leases: 3, HasCredential: true, Emptiest: 90 * time.Second,
				Accounts: []lease.AccountStats{{Name: "main", Due: 2, Lag: time.Second, Rate: 50, Down: true}},
			}
		},
		Streams:      func() stream.Stats { return stream.Stats{Open: 4, Ended: map[string]int64{"USER_DISABLED": 1}} },
		Passwords:    func() authn.PoolStats { return authn.PoolStats{Done: 9, Shed: 1} },
		Certificates: func() []pki.Status { return []pki.Status{{Name: "server certificate", Expires: time.Unix(2e9, 0)}} },
		Connections: func() map[string]admission.Stats {
			return map[string]admission.Stats{"main": {Open: 5, Handshakes: 2, Admitted: 6, Refused: map[admission.Cause]int64{admission.CauseFull: 4}}}
		},
		Revocations: func() []storage.Revocation {
			return []storage.Revocation{{State: storage.RevocationFailed}, {State: storage.RevocationLocal}, {State: storage.RevocationFailed}}
		},
		Trail: func() audit.Stats { return audit.Stats{Records: 11, Failed: 2, Queued: 1} },
	})
	return m
}

func gather(t *testing.T, m *metrics.Metrics) map[string]*dto.MetricFamily {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]*dto.MetricFamily{}
	for _, f := range families {
		byName[f.GetName()] = f
	}
	return byName
}

// value finds the metric whose labels have these values.
func value(f *dto.MetricFamily, labels ...string) float64 {
	for _, m := range f.GetMetric() {
		var got []string
		for _, l := range m.GetLabel() {
			got = append(got, l.GetValue())
		}
		if slices.Equal(got, labels) {
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return -1
}

func TestValues(t *testing.T) {
	got := gather(t, full())
	for _, c := range []struct {
		name   string
		labels []string
		want   float64
	}{
		{"stoker_ready", nil, 0},
		{"stoker_leases", nil, 3},
		{"stoker_lease_emptiest_seconds", nil, 90},
		{"stoker_credentials_total", []string{"renewed"}, 7},
		{"stoker_issue_queue", []string{"main"}, 2},
		{"stoker_sts_budget", []string{"main"}, 50},
		{"stoker_sts_down", []string{"main"}, 1},
		{"stoker_streams", nil, 4},
		{"stoker_connections", []string{"main", "established"}, 3},
		{"stoker_connections", []string{"main", "handshake"}, 2},
		{"stoker_connections_admitted_total", []string{"main"}, 6},
		{"stoker_connections_refused_total", []string{"full", "main"}, 4},
		{"stoker_streams_ended_total", []string{"USER_DISABLED"}, 1},
		{"stoker_password_hashes_total", []string{"shed"}, 1},
		{"stoker_certificate_expiry_seconds", []string{"server certificate"}, 2e9},
		{"stoker_audit_records_total", []string{"failed"}, 2},
		{"stoker_revocations", []string{"failed"}, 2},
		{"stoker_revocations", []string{"local"}, 1},
		{"stoker_revocations", []string{"pending"}, 0},
	} {
		if v := value(got[c.name], c.labels...); v != c.want {
			t.Errorf("%s%v = %v, want %v", c.name, c.labels, v, c.want)
		}
	}
}

func TestOnlyHistogramsBeforeAttach(t *testing.T) {
	if got := gather(t, metrics.New()); got["stoker_leases"] != nil {
		t.Error("parts were read before they were attached")
	}
}

// docs/metrics.md lists every metric, and nothing else. With STOKER_UPDATE_DOCS
// set, the test writes the table anew instead.
func TestMetricsAreDocumented(t *testing.T) {
	got := gather(t, full())
	names := make([]string, 0, len(got))
	for name := range got {
		names = append(names, name)
	}
	slices.Sort(names)
	var table strings.Builder
	table.WriteString("| metric | type | labels | meaning |\n|---|---|---|---|\n")
	for _, name := range names {
		f := got[name]
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, "`"+l.GetName()+"`")
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s |\n", name, strings.ToLower(f.GetType().String()), strings.Join(labels, ", "), f.GetHelp())
	}
	if err := docpage.Keep("../../../docs/metrics.md", "metrics", table.String()); err != nil {
		t.Error(err)
	}
}
