package server_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/stokerd/stoker/internal/partner"
	"github.com/stokerd/stoker/server"
	"github.com/stokerd/stoker/server/internal/brokertest"
)

const (
	rulesFile     = "../deploy/prometheus/stoker.rules.yaml"
	dashboardFile = "../deploy/grafana/stoker.json"
)

// rules is a file of alert rules.
type rules struct {
	Groups []struct {
		Name  string `yaml:"name"`
		Rules []struct {
			Alert       string            `yaml:"alert"`
			Record      string            `yaml:"record,omitempty"`
			Expr        string            `yaml:"expr"`
			Annotations map[string]string `yaml:"annotations,omitempty"`
		} `yaml:"rules"`
	} `yaml:"groups"`
}

func readRules(t *testing.T) (r rules) {
	t.Helper()
	text, err := os.ReadFile(rulesFile)
	wantOK(t, err)
	wantOK(t, yaml.Unmarshal(text, &r))
	return r
}

// dashboardQueries gives what the dashboard asks, by panel.
func dashboardQueries(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(dashboardFile)
	wantOK(t, err)
	var d struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr, RefID string }
		}
	}
	wantOK(t, json.Unmarshal(text, &d))
	queries := map[string]string{}
	for _, p := range d.Panels {
		for i, target := range p.Targets {
			queries[fmt.Sprint(p.Title, " ", i)] = target.Expr
		}
	}
	if len(queries) < 30 {
		t.Fatalf("the dashboard has only %d queries", len(queries))
	}
	return queries
}

// series are those of a scrape: for each name the sets of labels.
type series map[string][]map[string]string

var (
	sampleLine = regexp.MustCompile(`^([a-z_:A-Z0-9]+)(?:\{(.*)\})? `)
	labelPair  = regexp.MustCompile(`([a-zA-Z_]+)="([^"]*)"`)
	documented = regexp.MustCompile("(?m)^\\| `(stoker_[a-z_]+)` \\| (\\w+) \\| ([^|]*) \\|")
	metricName = regexp.MustCompile(`\b((?:stoker|grpc_server|go|process)_[a-z_]+)(\{[^}]*\})?`)
	matcher    = regexp.MustCompile(`([a-z_]+)(=~|!=|!~|=)"([^"]*)"`)
)

// scrape runs a broker and reads its metrics, and the documented ones that it
// has no value for yet.
func scrape(t *testing.T) series {
	t.Helper()
	b := site(t, brokertest.Options{Configure: func(c *server.Config) { c.Operations = "127.0.0.1:0" }})
	join(t, b, "acme", time.Hour).works(t)
	response, err := http.Get("http://" + b.Server.OperationsAddr().String() + "/metrics") //nolint:noctx // of this test's own broker
	wantOK(t, err)
	text, err := io.ReadAll(response.Body)
	wantOK(t, err)
	wantOK(t, response.Body.Close())
	found := series{}
	for line := range strings.Lines(string(text)) {
		if m := sampleLine.FindStringSubmatch(line); m != nil {
			labels := map[string]string{}
			for _, pair := range labelPair.FindAllStringSubmatch(m[2], -1) {
				labels[pair[1]] = pair[2]
			}
			found[m[1]] = append(found[m[1]], labels)
		}
	}
	docs, err := os.ReadFile("../docs/metrics.md")
	wantOK(t, err)
	for _, row := range documented.FindAllStringSubmatch(string(docs), -1) {
		names := []string{row[1]}
		if row[2] == "histogram" {
			names = []string{row[1] + "_bucket", row[1] + "_count", row[1] + "_sum"}
		}
		for _, name := range names {
			if _, ok := found[name]; !ok {
				found[name] = nil
			}
		}
	}
	return found
}

// check says what a query names that no broker has.
func (s series) check(query string) (wrong []string) {
	for _, m := range metricName.FindAllStringSubmatch(query, -1) {
		found, known := s[m[1]]
		if !known {
			wrong = append(wrong, m[1])
			continue
		}
		for _, want := range matcher.FindAllStringSubmatch(m[2], -1) {
			label, operator, value := want[1], want[2], want[3]
			if label == "instance" || label == "job" || found == nil {
				continue // Prometheus's own, or without values so far
			}
			pattern := "^(?:" + value + ")$"
			if operator == "=" || operator == "!=" {
				pattern = "^" + regexp.QuoteMeta(value) + "$"
			}
			if !slices.ContainsFunc(found, func(labels map[string]string) bool {
				return regexp.MustCompile(pattern).MatchString(labels[label])
			}) {
				wrong = append(wrong, m[1]+m[2])
			}
		}
	}
	return wrong
}

func TestAlertsAndDashboardNameWhatThereIs(t *testing.T) {
	found := scrape(t)
	for panel, query := range dashboardQueries(t) {
		if wrong := found.check(query); wrong != nil {
			t.Errorf("panel %s: there is no %v", panel, wrong)
		}
	}
	for _, g := range readRules(t).Groups {
		for _, r := range g.Rules {
			if wrong := found.check(r.Expr); wrong != nil {
				t.Errorf("alert %s: there is no %v", r.Alert, wrong)
			}
		}
	}
	if wrong := found.check(`rate(stoker_nothing[5m]) + stoker_credentials_total{result="nothing"} + stoker_ready`); len(wrong) != 2 {
		t.Errorf("the check itself finds %v", wrong)
	}
}

// promtool runs Prometheus's own checker.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	tool := partner.LookPath(t, "promtool", "install Debian's prometheus, or put promtool on PATH")
	if out, err := exec.CommandContext(t.Context(), tool, args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestAlertRules(t *testing.T) {
	promtool(t, "check", "rules", rulesFile)
	tests, err := filepath.Glob("../deploy/prometheus/*.test.yaml")
	wantOK(t, err)
	promtool(t, append([]string{"test", "rules"}, tests...)...)
	// Each alert is seen firing.
	fires := map[string]bool{}
	for _, path := range tests {
		text, err := os.ReadFile(path)
		wantOK(t, err)
		var file struct {
			Tests []struct {
				Alerts []struct {
					Name     string `yaml:"alertname"`
					Expected []any  `yaml:"exp_alerts"`
				} `yaml:"alert_rule_test"`
			} `yaml:"tests"`
		}
		wantOK(t, yaml.Unmarshal(text, &file))
		for _, test := range file.Tests {
			for _, a := range test.Alerts {
				fires[a.Name] = fires[a.Name] || len(a.Expected) > 0
			}
		}
	}
	for _, g := range readRules(t).Groups {
		for _, r := range g.Rules {
			if !fires[r.Alert] {
				t.Errorf("no test sees %s firing", r.Alert)
			}
			if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%s does not say what happened and what to do", r.Alert)
			}
		}
	}
}

// The dashboard's queries are valid: as recording rules promtool parses them.
func TestDashboardQueries(t *testing.T) {
	var file strings.Builder
	file.WriteString("groups:\n- name: dashboard\n  rules:\n")
	fill := strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*")
	i := 0
	for panel, query := range dashboardQueries(t) {
		i++
		fmt.Fprintf(&file, "  # %s\n  - record: panel:%d\n    expr: %q\n", panel, i, fill.Replace(query))
	}
	path := filepath.Join(t.TempDir(), "dashboard.yaml")
	wantOK(t, os.WriteFile(path, []byte(file.String()), 0o600))
	promtool(t, "check", "rules", path)
}
