package server

import (
	"context"
	"fmt"
	"maps"
	stdreflect "reflect"
	"slices"
	"strings"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/storage"
)

// Reload takes over the operators and services of a configuration that was read
// again. Whoever loses a right by that is told, and loses its streams, before
// Reload returns; also where that could not be recorded, which is an error. All
// else in the configuration needs a restart; what differs is logged and left as
// it is.
func (s *Server) Reload(ctx context.Context, c Config) error {
	c.setDefaults()
	operators, services := c.parties()
	if err := s.who.SetParties(operators, services); err != nil {
		return fmt.Errorf("the broker goes on with what it has: %w", err)
	}
	// In the order in which the directory's changes are told.
	s.leases.Recheck()
	s.streams.Recheck()
	if others := s.config.differs(c); len(others) > 0 {
		s.log.WarnContext(ctx, "the configuration differs in what only a restart takes over", "settings", others)
	}
	s.log.InfoContext(ctx, "operators and services were read again")
	if _, err := s.trail.Append(ctx, storage.AuditRecord{
		Event: string(audit.RulesChanged), Actor: "broker", Detail: c.describeParties(),
	}, audit.NoFence); err != nil {
		return fmt.Errorf("operators and services were taken over, but that is not in the audit trail: %w", err)
	}
	return nil
}

// parties are the callers that the configuration knows.
func (c Config) parties() (map[string]authn.Role, map[string]authn.ServiceRule) {
	operators := make(map[string]authn.Role, len(c.Operators))
	for name, role := range c.Operators {
		operators[name] = authn.Role(role)
	}
	services := make(map[string]authn.ServiceRule, len(c.Services))
	for name, rule := range c.Services {
		services[name] = authn.ServiceRule(rule)
	}
	return operators, services
}

// describeParties writes them for the audit trail.
func (c Config) describeParties() map[string]string {
	detail := make(map[string]string, len(c.Operators)+len(c.Services))
	for name, role := range c.Operators {
		detail["operator/"+name] = role
	}
	for name, rule := range c.Services {
		detail["service/"+name] = strings.Join(rule.Access, ",") + " of " + strings.Join(rule.Tenants, ",")
	}
	return detail
}

// differs names the settings in which the other configuration differs, except
// those that Reload takes over and those that are not in the file.
func (c Config) differs(other Config) []string {
	c.Operators, c.Services = other.Operators, other.Services
	c.Accounts, other.Accounts = settings(c.Accounts), settings(other.Accounts)
	var names []string
	mine, theirs := stdreflect.ValueOf(c), stdreflect.ValueOf(other)
	for i := range mine.NumField() {
		if !stdreflect.DeepEqual(mine.Field(i).Interface(), theirs.Field(i).Interface()) {
			name, _, _ := strings.Cut(mine.Type().Field(i).Tag.Get("yaml"), ",")
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// settings are the accounts without what no file can hold.
func settings(accounts map[string]AccountConfig) map[string]AccountConfig {
	accounts = maps.Clone(accounts)
	for name, a := range accounts {
		a.Keys, a.Issuer = nil, nil
		accounts[name] = a
	}
	return accounts
}
