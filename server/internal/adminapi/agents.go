package adminapi

import (
	"context"
	"strconv"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/message"
	"github.com/stokerd/stoker/server/internal/storage"
)

type agents struct {
	stokerv1.UnsafeAgentServiceServer
	*API
}

// agentKind is of the agents of one tenant.
func (a *API) agentKind(tenant storage.Tenant) kind[storage.Agent] {
	return kind[storage.Agent]{
		noun: "agent",
		meta: func(v *storage.Agent) *storage.Meta { return &v.Meta },
		name: func(v storage.Agent) string { return tenant.Name + "/" + v.Name },
		about: func(v storage.Agent, r *storage.AuditRecord) {
			r.TenantID, r.Tenant, r.AgentID, r.Agent = tenant.ID, tenant.Name, v.ID, v.Name
		},
		values: func(v storage.Agent) map[string]string {
			return map[string]string{"disabled": strconv.FormatBool(v.Disabled)}
		},
		get: a.Store.GetAgent, create: a.Store.CreateAgent, update: a.Store.UpdateAgent, remove: a.Store.DeleteAgent,
	}
}

// findAgent looks an agent up in a directory that was synced.
func (a *API) findAgent(tenant storage.Tenant, field, name string) (storage.Agent, error) {
	if err := nameForm.check(field, name); err != nil {
		return storage.Agent{}, err
	}
	v, ok := a.Directory.AgentByName(tenant.ID, name)
	if !ok {
		return v, unknown("agent", tenant.Name+"/"+name)
	}
	return v, nil
}

func (s agents) message(tenant storage.Tenant, v storage.Agent) *stokerv1.Agent {
	return &stokerv1.Agent{
		Tenant: tenant.Name, Name: v.Name, Disabled: v.Disabled,
		Id: v.ID, Etag: s.agentKind(tenant).etag(v), CreateTime: message.Time(v.CreatedAt), UpdateTime: message.Time(v.UpdatedAt),
	}
}

// CreateAgent implements stokerv1.AgentServiceServer.
func (s agents) CreateAgent(ctx context.Context, r *stokerv1.CreateAgentRequest) (*stokerv1.CreateAgentResponse, error) {
	given := r.GetAgent()
	if given == nil {
		return nil, invalid("agent", "is missing")
	}
	if err := nameForm.check("agent.name", given.GetName()); err != nil {
		return nil, err
	}
	t, err := s.tenant(ctx, "agent.tenant", given.GetTenant())
	if err != nil {
		return nil, err
	}
	v, err := create(ctx, s.API, s.agentKind(t), storage.Agent{TenantID: t.ID, Name: given.GetName(), Disabled: given.GetDisabled()})
	if err != nil {
		return nil, err
	}
	return &stokerv1.CreateAgentResponse{Agent: s.message(t, v)}, nil
}

// find looks up a tenant and one of its agents.
func (s agents) find(ctx context.Context, prefix, tenant, name string) (storage.Tenant, storage.Agent, error) {
	t, err := s.tenant(ctx, prefix+"tenant", tenant)
	if err != nil {
		return t, storage.Agent{}, err
	}
	v, err := s.findAgent(t, prefix+"name", name)
	return t, v, err
}

// GetAgent implements stokerv1.AgentServiceServer.
func (s agents) GetAgent(ctx context.Context, r *stokerv1.GetAgentRequest) (*stokerv1.GetAgentResponse, error) {
	t, v, err := s.find(ctx, "", r.GetTenant(), r.GetName())
	if err != nil {
		return nil, err
	}
	return &stokerv1.GetAgentResponse{Agent: s.message(t, v)}, nil
}

// ListAgents implements stokerv1.AgentServiceServer.
func (s agents) ListAgents(ctx context.Context, r *stokerv1.ListAgentsRequest) (*stokerv1.ListAgentsResponse, error) {
	t, err := s.tenant(ctx, "tenant", r.GetTenant())
	if err != nil {
		return nil, err
	}
	found, next, err := readPage(ctx, s.API, list{"agents", t.ID}, page{r.GetPageSize(), r.GetPageToken()},
		within(t.ID, s.Store.ListAgents), func(v storage.Agent) string { return v.Name },
		sure(func(v storage.Agent) *stokerv1.Agent { return s.message(t, v) }))
	if err != nil {
		return nil, err
	}
	return &stokerv1.ListAgentsResponse{Agents: found, NextPageToken: next}, nil
}

// UpdateAgent implements stokerv1.AgentServiceServer.
func (s agents) UpdateAgent(ctx context.Context, r *stokerv1.UpdateAgentRequest) (*stokerv1.UpdateAgentResponse, error) {
	given := r.GetAgent()
	if given == nil {
		return nil, invalid("agent", "is missing")
	}
	chosen, err := readMask(r.GetUpdateMask(), "disabled")
	if err != nil {
		return nil, err
	}
	t, known, err := s.find(ctx, "agent.", given.GetTenant(), given.GetName())
	if err != nil {
		return nil, err
	}
	v, err := update(ctx, s.API, s.agentKind(t), known, given.GetEtag(), func(v storage.Agent) (storage.Agent, error) {
		take(chosen, "disabled", &v.Disabled, given.GetDisabled())
		return v, nil
	})
	if err != nil {
		return nil, err
	}
	return &stokerv1.UpdateAgentResponse{Agent: s.message(t, v)}, nil
}

// DeleteAgent implements stokerv1.AgentServiceServer.
func (s agents) DeleteAgent(ctx context.Context, r *stokerv1.DeleteAgentRequest) (*stokerv1.DeleteAgentResponse, error) {
	t, v, err := s.find(ctx, "", r.GetTenant(), r.GetName())
	if err != nil {
		return nil, err
	}
	if err := remove(ctx, s.API, s.agentKind(t), v, r.GetEtag()); err != nil {
		return nil, err
	}
	return &stokerv1.DeleteAgentResponse{}, nil
}
