package main

import (
	"strconv"
	"time"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

type streamsCommand struct {
	Tenant string `help:"Only this tenant's."`
	Agent  string `help:"Only the agents of this name."`
}

func (c *streamsCommand) Run(a *api) error {
	found, err := all(func(token string) ([]*stokerv1.Stream, string, error) {
		r, err := a.fleet.ListStreams(a.ctx, &stokerv1.ListStreamsRequest{
			Tenant: c.Tenant, Agent: c.Agent, PageSize: pageSize, PageToken: token,
		})
		return r.GetStreams(), r.GetNextPageToken(), err
	})
	if err != nil {
		return err
	}
	if a.json {
		return showList(a.output, []column[*stokerv1.Stream]{}, found)
	}
	return a.table(
		[]string{"AGENT OR SERVICE", "USER OR REASON", "GRANT", "CREDENTIAL", "LEFT", "ACKNOWLEDGED", "PENDING", "OPEN SINCE", "FROM", "CLIENT"},
		func(row func(...string)) {
			for _, s := range found {
				holder, user := s.GetTenant()+"/"+s.GetAgent(), s.GetLogin()
				if s.GetService() != "" {
					holder, user = s.GetTenant()+" by service "+s.GetService(), s.GetReason()
				}
				for _, g := range orNone(s.GetGrants()) {
					row(holder, user, g.GetGrant(), g.GetCredentialId(), left(g.GetExpireTime(), time.Now()),
						at(g.GetAcknowledgeTime()), strconv.Itoa(int(s.GetPending())), at(s.GetOpenTime()), s.GetPeer(), s.GetClient())
				}
			}
		})
}

// orNone gives a stream without grants a line as well.
func orNone(grants []*stokerv1.StreamGrant) []*stokerv1.StreamGrant {
	if len(grants) == 0 {
		return []*stokerv1.StreamGrant{nil}
	}
	return grants
}
