package client_test

import (
	"context"
	"strings"
	"testing"

	"github.com/stokerd/stoker/client"
)

// What does not go with a delegation is refused before anything is opened.
func TestDelegationsThatAreRefused(t *testing.T) {
	for want, change := range map[string]func(*client.Config){
		"a service has no login": func(c *client.Config) { c.Login = "nightly@acme" },
		"leave login":            func(c *client.Config) { c.Password = func(context.Context) (string, error) { return "x", nil } },
		"name the grant in it":   func(c *client.Config) { c.Grants = []string{"nightly"} },
		"is not renewed":         func(c *client.Config) { c.Renew = true },
		"no tenant's name":       func(c *client.Config) { c.Delegation.Tenant = "Acme" },
		`grant "*"`:              func(c *client.Config) { c.Delegation.Grant = "*" },
		"1 to 256 printable":     func(c *client.Config) { c.Delegation.Reason = "" },
		"256 printable":          func(c *client.Config) { c.Delegation.Reason = strings.Repeat("x", 257) },
		"printable characters":   func(c *client.Config) { c.Delegation.Reason = "a\nb" },
	} {
		c := client.Config{
			Brokers:    []string{"broker.example.com:7443"},
			Delegation: &client.Delegation{Tenant: "acme", Grant: "nightly", Reason: "ticket 4711"},
		}
		change(&c)
		if source, err := client.New(t.Context(), c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
			if source != nil {
				_ = source.Close()
			}
		}
	}
}
