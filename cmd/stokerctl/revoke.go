package main

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

type revokeCommands struct {
	Tenant      revokeTenant      `cmd:"" help:"Disable a tenant and end all its streams."`
	User        revokeUser        `cmd:"" help:"Disable a user and end the user's streams."`
	Agent       revokeAgent       `cmd:"" help:"Disable an agent and end its streams."`
	Grant       revokeGrant       `cmd:"" help:"Disable a grant and tell its agents to stop."`
	Credential  revokeCredential  `cmd:"" help:"Revoke one credential; its agent gets another."`
	Certificate revokeCertificate `cmd:"" help:"Revoke a certificate and end its streams."`
}

// revocation is what all have.
type revocation struct {
	Reason string `required:"" help:"Why, for the audit trail."`
	DryRun bool   `help:"Say what would be done, and do nothing."`
}

type revokeTenant struct {
	Tenant string `arg:""`
	revocation
}

func (c *revokeTenant) Run(a *api) error {
	return c.run(a, "tenant "+c.Tenant, &stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Tenant{Tenant: c.Tenant}})
}

type revokeUser struct {
	User login `arg:"" name:"login@tenant"`
	revocation
}

func (c *revokeUser) Run(a *api) error {
	return c.run(a, "user "+c.User.String(), &stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_User{User: c.User.String()}})
}

type revokeAgent struct {
	Agent member `arg:"" name:"tenant/agent"`
	revocation
}

func (c *revokeAgent) Run(a *api) error {
	return c.run(a, "agent "+c.Agent.String(), &stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Agent{Agent: c.Agent.String()}})
}

type revokeGrant struct {
	Grant member `arg:"" name:"tenant/grant"`
	revocation
}

func (c *revokeGrant) Run(a *api) error {
	return c.run(a, "grant "+c.Grant.String(), &stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Grant{Grant: c.Grant.String()}})
}

type revokeCredential struct {
	ID string `arg:"" help:"The credential's id, as streams and audit whois show it."`
	revocation
}

func (c *revokeCredential) Run(a *api) error {
	return c.run(a, "credential "+c.ID, &stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Credential{Credential: c.ID}})
}

type revokeCertificate struct {
	Serial string `arg:"" help:"The serial number in hexadecimal, as audit whois and streams -o json show it."`
	revocation
}

func (c *revokeCertificate) Run(a *api) error {
	return c.run(a, "certificate "+c.Serial, &stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Certificate{Certificate: c.Serial}})
}

// run asks the broker what it would do, shows that, and has it done.
func (c revocation) run(a *api, what string, r *stokerv1.RevokeRequest) error {
	r.Reason, r.DryRun = c.Reason, true
	plan, err := a.fleet.Revoke(a.ctx, r)
	if err != nil {
		return err
	}
	summary := fmt.Sprintf("revoke %s: %s", what, effect(plan))
	if c.DryRun {
		return a.done(plan, "would %s", summary)
	}
	if err := a.confirm("%s", summary); err != nil {
		return err
	}
	r = proto.CloneOf(r)
	r.DryRun = false
	answer, err := a.fleet.Revoke(a.ctx, r)
	if err != nil {
		return err
	}
	if err := a.done(answer, "revoked %s: %s", what, effect(answer)); err != nil {
		return err
	}
	for _, v := range answer.GetRevocations() {
		if v.GetAccount() != "" && v.GetState() == stokerv1.RevocationState_REVOCATION_STATE_LOCAL {
			a.say("note: credentials of account %s that were issued already stay valid until %s at the latest", v.GetAccount(), at(v.GetUntilTime()))
		}
	}
	return nil
}

// effect says what a revocation does.
func effect(r *stokerv1.RevokeResponse) string {
	streams := fmt.Sprintf("%d streams end on this replica", r.GetStreamsEnded())
	if r.GetStreamsEnded() == 1 {
		streams = "1 stream ends on this replica"
	}
	var accounts []string
	for _, v := range r.GetRevocations() {
		if v.GetAccount() != "" {
			accounts = append(accounts, v.GetAccount())
		}
	}
	if len(accounts) == 0 {
		return streams
	}
	return streams + ", recorded for account " + strings.Join(accounts, ", ")
}

var revocationColumns = []column[*stokerv1.RevocationRecord]{
	{title: "SINCE", value: func(v *stokerv1.RevocationRecord) string { return at(v.GetBeforeTime()) }},
	{title: "WHO", value: func(v *stokerv1.RevocationRecord) string { return v.GetTargetKind() + " " + v.GetTarget() }},
	{title: "ACCOUNT", value: (*stokerv1.RevocationRecord).GetAccount},
	{title: "STATE", value: func(v *stokerv1.RevocationRecord) string {
		return strings.ToLower(strings.TrimPrefix(v.GetState().String(), "REVOCATION_STATE_"))
	}},
	{title: "UNTIL", value: func(v *stokerv1.RevocationRecord) string { return at(v.GetUntilTime()) }},
	{title: "BY", value: (*stokerv1.RevocationRecord).GetOperator},
	{title: "REASON", value: (*stokerv1.RevocationRecord).GetReason},
	{title: "PROBLEM", value: (*stokerv1.RevocationRecord).GetProblem},
}

type revocationsCommand struct {
	All bool `help:"Those also whose credentials have all expired."`
}

func (c *revocationsCommand) Run(a *api) error {
	found, err := all(func(token string) ([]*stokerv1.RevocationRecord, string, error) {
		r, err := a.fleet.ListRevocations(a.ctx, &stokerv1.ListRevocationsRequest{ShowExpired: c.All, PageSize: pageSize, PageToken: token})
		return r.GetRevocations(), r.GetNextPageToken(), err
	})
	if err != nil {
		return err
	}
	return showList(a.output, revocationColumns, found)
}
