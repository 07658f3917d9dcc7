package server_test

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/stokerd/stoker/server"
)

// stopsIn is how long a broker may take to stop beside its drain window: calls
// that are no streams, spans, the audit trail.
const stopsIn = 15 * time.Second

// parseShipped parses a configuration that names files of a real machine.
func parseShipped(t *testing.T, name, text string) server.Config {
	t.Helper()
	key := filepath.Join(t.TempDir(), "encryption.key")
	wantOK(t, os.WriteFile(key, nil, 0o600))
	c, err := server.Parse(name, []byte(strings.ReplaceAll(text, "/etc/stoker/encryption.key", key)))
	wantOK(t, err)
	return c
}

func readShipped(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	wantOK(t, err)
	return string(text)
}

func TestSystemdUnitFitsTheExample(t *testing.T) {
	c := parseShipped(t, "stoker.yaml", readShipped(t, "../deploy/stoker.yaml"))
	unit := readShipped(t, "../deploy/systemd/stokerd.service")
	setting := func(name string) string {
		t.Helper()
		m := regexp.MustCompile(`(?m)^` + name + `=(.*)$`).FindStringSubmatch(unit)
		if m == nil {
			t.Fatalf("the unit has no %s", name)
		}
		return m[1]
	}
	stop, err := time.ParseDuration(setting("TimeoutStopSec"))
	wantOK(t, err)
	if stop < c.Drain+stopsIn {
		t.Errorf("systemd kills after %v, a stop may take %v", stop, c.Drain+stopsIn)
	}
	if want := "/usr/local/bin/stokerd serve --config /etc/stoker/stoker.yaml"; setting("ExecStart") != want {
		t.Errorf("it runs %q, want %q", setting("ExecStart"), want)
	}
	// What the example writes, the unit lets it write.
	if dir := "/var/lib/" + setting("StateDirectory"); filepath.Dir(c.Storage.SQLite) != dir {
		t.Errorf("the database is not in %s", dir)
	}
	if dir := "/var/log/" + setting("LogsDirectory"); filepath.Dir(c.Audit.Export) != dir {
		t.Errorf("the audit export is not in %s", dir)
	}
}

// manifest is what is looked at of a Kubernetes object.
type manifest struct {
	Kind     string
	Metadata struct{ Name, Namespace string }
	Data     map[string]string
	Spec     struct {
		Replicas int
		Selector any
		Ports    []struct {
			Name       string
			Port       int
			TargetPort string `yaml:"targetPort"`
		}
		Template struct {
			Metadata struct{ Labels map[string]string }
			Spec     struct {
				Grace      int `yaml:"terminationGracePeriodSeconds"`
				Containers []struct {
					Args  []string
					Ports []struct {
						Name          string
						ContainerPort string `yaml:"containerPort"`
					}
				}
			}
		}
	}
}

func TestKubernetesManifestsFitTogether(t *testing.T) {
	kinds := map[string]manifest{}
	decoder := yaml.NewDecoder(strings.NewReader(readShipped(t, "../deploy/kubernetes/stoker.yaml")))
	for {
		var m manifest
		err := decoder.Decode(&m)
		if errors.Is(err, io.EOF) {
			break
		}
		wantOK(t, err)
		kinds[m.Kind] = m
		if m.Metadata.Name != "stoker" || m.Metadata.Namespace != "stoker" {
			t.Errorf("%s is %s/%s", m.Kind, m.Metadata.Namespace, m.Metadata.Name)
		}
	}
	for _, kind := range []string{"ServiceAccount", "ConfigMap", "Deployment", "PodDisruptionBudget", "Service", "NetworkPolicy"} {
		if _, ok := kinds[kind]; !ok {
			t.Fatalf("there is no %s", kind)
		}
	}
	config := parseShipped(t, "ConfigMap", kinds["ConfigMap"].Data["stoker.yaml"])
	deployed := kinds["Deployment"]
	pod := deployed.Spec.Template.Spec
	if deployed.Spec.Replicas < 2 || config.Storage.Postgres == "" {
		t.Errorf("%d replicas on %+v", deployed.Spec.Replicas, config.Storage)
	}
	if grace := time.Duration(pod.Grace) * time.Second; grace < config.Drain+stopsIn {
		t.Errorf("the pod is killed after %v, a stop may take %v", grace, config.Drain+stopsIn)
	}
	ports := map[string]string{}
	for _, p := range pod.Containers[0].Ports {
		ports[p.Name] = p.ContainerPort
	}
	for name, address := range map[string]string{"grpc": config.Listen, "enrollment": config.Enrollment.Listen, "operations": config.Operations} {
		_, port, err := net.SplitHostPort(address)
		wantOK(t, err)
		if ports[name] != port {
			t.Errorf("port %s is %s, the configuration says %s", name, ports[name], port)
		}
	}
	for _, p := range kinds["Service"].Spec.Ports {
		if ports[p.TargetPort] == "" {
			t.Errorf("the service leads to the port %q, which there is not", p.TargetPort)
		}
		if p.TargetPort == "operations" {
			t.Error("the service opens the operations listener to everybody")
		}
	}
}

// The probes' paths are those that the operations listener serves.
func TestKubernetesProbes(t *testing.T) {
	text := readShipped(t, "../deploy/kubernetes/stoker.yaml")
	for _, path := range []string{"path: /healthz, port: operations", "path: /readyz, port: operations"} {
		if !strings.Contains(text, path) {
			t.Errorf("no probe of %s", path)
		}
	}
	if strings.Contains(text, "livenessProbe:\n            httpGet: {path: /readyz") {
		t.Error("a broker without its database would be killed, and its streams with it")
	}
}
