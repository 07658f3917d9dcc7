package secret_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stokerd/stoker/server/internal/secret"
)

const canary = "canary-7f3a"

func TestNothingPrintsTheValue(t *testing.T) {
	s := secret.New(canary)
	holder := struct {
		Name string
		Key  secret.String
		Ptr  *secret.String
		Map  map[string]secret.String
	}{"n", s, &s, map[string]secret.String{"k": s}}

	var printed strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T %v"} {
		fmt.Fprintf(&printed, verb+"\n", s, s)
		fmt.Fprintf(&printed, verb+"\n", holder, holder)
	}
	asJSON, err := json.Marshal(holder)
	if err != nil {
		t.Fatal(err)
	}
	printed.Write(asJSON)
	var logged bytes.Buffer
	for _, h := range []slog.Handler{slog.NewJSONHandler(&logged, nil), slog.NewTextHandler(&logged, nil)} {
		slog.New(h).Info("m", "secret", s, "holder", holder, "err", fmt.Errorf("wrapped: %v", s))
	}
	printed.Write(logged.Bytes())

	if strings.Contains(printed.String(), canary) {
		t.Errorf("the secret was printed:\n%s", printed.String())
	}
	if strings.Contains(printed.String(), fmt.Sprintf("%x", canary)) {
		t.Errorf("the secret was printed in hexadecimal:\n%s", printed.String())
	}
	if !strings.Contains(printed.String(), secret.Redacted) {
		t.Error("nothing says REDACTED")
	}
}

func TestReveal(t *testing.T) {
	if got := secret.New(canary).Reveal(); got != canary {
		t.Errorf("Reveal = %q", got)
	}
	if !secret.New("").IsZero() || secret.New("x").IsZero() {
		t.Error("IsZero is wrong")
	}
	if !secret.New("a").Equal(secret.New("a")) || secret.New("a").Equal(secret.New("b")) {
		t.Error("Equal is wrong")
	}
}

func TestDecodingIsRefused(t *testing.T) {
	var v struct{ Key secret.String }
	if err := json.Unmarshal([]byte(`{"Key":"x"}`), &v); err == nil {
		t.Error("a secret was decoded in place")
	}
}
