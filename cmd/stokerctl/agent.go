package main

import (
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

type agentCommands struct {
	Create      agentCreate      `cmd:"" help:"Add an agent. It needs a certificate before it can connect."`
	Get         agentGet         `cmd:"" help:"Show one agent."`
	List        agentList        `cmd:"" help:"List a tenant's agents by name."`
	Update      agentUpdate      `cmd:"" help:"Enable or disable an agent."`
	Delete      agentDelete      `cmd:"" help:"Remove an agent and end its streams. Its certificates are of no use from then on."`
	Certificate agentCertificate `cmd:"" help:"Make a key here, and have the broker's authority sign a certificate for it."`
	Invite      agentInvite      `cmd:"" help:"Make a one-time join token, with which a new agent enrolls by itself."`
}

var agentColumns = append([]column[*stokerv1.Agent]{
	{title: "AGENT", value: func(v *stokerv1.Agent) string { return v.GetTenant() + "/" + v.GetName() }},
	{title: "STATE", value: stateOf[*stokerv1.Agent]},
}, common[*stokerv1.Agent]()...)

type agentCreate struct {
	Agent   member `arg:"" name:"tenant/agent" help:"The name is up to 63 lower-case letters, digits and dashes."`
	Disable bool   `help:"Issue nothing to it for now."`
}

func (c *agentCreate) Run(a *api) error {
	r, err := a.agents.CreateAgent(a.ctx, &stokerv1.CreateAgentRequest{
		Agent: &stokerv1.Agent{Tenant: c.Agent.tenant, Name: c.Agent.name, Disabled: c.Disable},
	})
	if err != nil {
		return err
	}
	return a.done(r.GetAgent(), "created agent %s", c.Agent)
}

type agentGet struct {
	Agent member `arg:"" name:"tenant/agent"`
}

func (c *agentGet) Run(a *api) error {
	r, err := a.agents.GetAgent(a.ctx, &stokerv1.GetAgentRequest{Tenant: c.Agent.tenant, Name: c.Agent.name})
	if err != nil {
		return err
	}
	return show(a.output, agentColumns, r.GetAgent())
}

type agentList struct {
	Tenant string `arg:""`
}

func (c *agentList) Run(a *api) error {
	found, err := a.allAgents(c.Tenant)
	if err != nil {
		return err
	}
	return showList(a.output, agentColumns, found)
}

func (a *api) allAgents(tenant string) ([]*stokerv1.Agent, error) {
	return all(func(token string) ([]*stokerv1.Agent, string, error) {
		r, err := a.agents.ListAgents(a.ctx, &stokerv1.ListAgentsRequest{Tenant: tenant, PageSize: pageSize, PageToken: token})
		return r.GetAgents(), r.GetNextPageToken(), err
	})
}

type agentUpdate struct {
	Agent member `arg:"" name:"tenant/agent"`
	switching
	unchanged
}

func (c *agentUpdate) Run(a *api) error {
	var e edit
	v := &stokerv1.Agent{Tenant: c.Agent.tenant, Name: c.Agent.name, Etag: c.Etag, Disabled: e.disabled(c.switching)}
	mask, err := e.paths()
	if err != nil {
		return err
	}
	r, err := a.agents.UpdateAgent(a.ctx, &stokerv1.UpdateAgentRequest{Agent: v, UpdateMask: mask})
	if err != nil {
		return err
	}
	return a.done(r.GetAgent(), "updated agent %s", c.Agent)
}

type agentDelete struct {
	Agent member `arg:"" name:"tenant/agent"`
	unchanged
}

func (c *agentDelete) Run(a *api) error {
	if err := a.confirm("delete agent %s", c.Agent); err != nil {
		return err
	}
	r, err := a.agents.DeleteAgent(a.ctx, &stokerv1.DeleteAgentRequest{Tenant: c.Agent.tenant, Name: c.Agent.name, Etag: c.Etag})
	if err != nil {
		return err
	}
	return a.done(r, "deleted agent %s", c.Agent)
}

type agentInvite struct {
	Agent member `arg:"" name:"tenant/agent" help:"Created if there is none of that name."`
}

func (c *agentInvite) Run(a *api) error {
	r, err := a.agents.InviteAgent(a.ctx, &stokerv1.InviteAgentRequest{Tenant: c.Agent.tenant, Name: c.Agent.name})
	if err != nil {
		return err
	}
	a.say("invited %s: the token is usable once, until %s", c.Agent, at(r.GetExpireTime()))
	return a.done(r, "%s", r.GetJoinToken())
}
