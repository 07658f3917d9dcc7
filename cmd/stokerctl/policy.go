package main

import (
	"errors"
	"fmt"
	"strings"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

type policyCommands struct {
	Explain policyExplain `cmd:"" help:"Show a grant's session policy and say what it allows."`
}

type policyExplain struct {
	Grant  member   `required:"" placeholder:"TENANT/GRANT" help:"The grant."`
	Object string   `placeholder:"KEY" help:"Judge this object's key: may it be read, written, deleted? For s3:ListBucket it is the prefix that is listed."`
	Action []string `placeholder:"s3:ACTION" help:"Judge this action; repeat it for more. Exits with 1 if one is denied."`
}

// Help is what policy explain --help adds.
func (*policyExplain) Help() string {
	return "It judges the session policy alone. A credential can do what that and the rights of the account's role or user both allow, and what the bucket's policy gives to everybody: see stokerctl doctor --grant."
}

func (c *policyExplain) Run(a *api) error {
	r, err := a.grants.ExplainGrant(a.ctx, &stokerv1.ExplainGrantRequest{Tenant: c.Grant.tenant, Name: c.Grant.name, Key: c.Object, Actions: c.Action})
	if err != nil {
		return err
	}
	if a.json {
		err = a.object(r)
	} else {
		err = a.printPolicy(r)
	}
	if err != nil {
		return err
	}
	if len(c.Action) > 0 {
		for _, d := range r.GetDecisions() {
			if !d.GetAllowed() {
				return errors.New("denied: " + d.GetExplanation())
			}
		}
	}
	return nil
}

func (a *api) printPolicy(r *stokerv1.ExplainGrantResponse) error {
	if len(r.GetDecisions()) > 0 {
		return a.table([]string{"ACTION", "RESULT", "WHY"}, func(row func(...string)) {
			for _, d := range r.GetDecisions() {
				result := "denied"
				if d.GetAllowed() {
					result = "allowed"
				}
				row(d.GetAction(), result, d.GetExplanation())
			}
		})
	}
	for _, s := range r.GetStatements() {
		lines := []string{
			"may " + s.GetPurpose(),
			"  actions    " + strings.Join(s.GetActions(), " "),
			"  resources  " + strings.Join(s.GetResources(), " "),
		}
		if s.GetCondition() != "" {
			lines = append(lines, "  condition  "+s.GetCondition())
		}
		for _, line := range lines {
			if _, err := fmt.Fprintln(a.out, clean(line)); err != nil {
				return err
			}
		}
	}
	return a.printPolicyText(fmt.Sprintf("session policy (%d of 2048 characters when minified):", r.GetLength()), r.GetSessionPolicy())
}
