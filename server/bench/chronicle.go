package bench

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"
	"unique"

	"github.com/stokerd/stoker/server/bench/internal/fleet"
	"github.com/stokerd/stoker/server/bench/internal/site"
	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/history"
	"github.com/stokerd/stoker/server/internal/issuer/devsts"
	"github.com/stokerd/stoker/server/internal/storage"
)

// chronicle gathers the history of a site: what the STS issued, what agents
// received, what operators cut off, and in the end what the audit trail says.
// It implements fleet.Journal.
type chronicle struct {
	mu      sync.Mutex
	site    *site.Site
	history history.History
	faults  []spell
}

// spell is a time in which the STS failed calls.
type spell struct{ from, to time.Time }

// prompt is how long a cut-off may take to reach an agent before the history
// counts as broken. The promise is a second, which is measured; this much a
// machine may be busy with other things.
const prompt = time.Minute

func (c *chronicle) begin(s *site.Site) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.site = s
	c.history.Bucket, c.history.Prompt = site.Bucket, prompt
	// The STS's answers may be lost, and so may the broker that asked.
	c.history.Discarded = math.MaxInt
	for _, g := range s.Groups {
		c.history.Terms = append(c.history.Terms, history.Terms{Tenant: g.Tenant, Grant: site.Grant, Prefix: site.Prefix(g.Tenant)})
	}
}

func (c *chronicle) issued(i devsts.Issued) {
	// The policies of a tenant are the same text.
	policy := unique.Make(i.Policy).Value()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.history.Issued = append(c.history.Issued, history.Issued{AccessKeyID: i.AccessKeyID, At: i.IssuedAt, Policy: policy})
}

func (c *chronicle) cut(cut history.Cut) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.history.Cuts = append(c.history.Cuts, cut)
}

func (c *chronicle) fault(s spell) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, s)
}

// lastProbe is how far apart a broker's probes of an STS are that is away: so
// long it may take until one that is back is known to be.
const lastProbe = 5 * time.Second

// margin is the least share of its life that a credential had when the next one
// came, 1 where none did.
type margin struct {
	// inReach is that of the renewals, so many of them, that no fault of the STS
	// can have held up; all is that of all.
	inReach, all float64
	renewals     int
}

// margin gives that of a tenant until now.
func (c *chronicle) margin(tenant string) margin {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := margin{inReach: 1, all: 1}
	held := map[string]history.Received{} // by agent
	for _, r := range c.history.Received {
		if r.Tenant != tenant {
			continue
		}
		old, renewed := held[r.Agent]
		held[r.Agent] = r
		if !renewed {
			continue
		}
		life := old.Expires.Sub(old.Issued)
		left := float64(old.Expires.Sub(r.At)) / float64(life)
		m.all = min(m.all, left)
		due := old.Issued.Add(time.Duration(earliestRenewal * float64(life)))
		if !slices.ContainsFunc(c.faults, func(s spell) bool { return s.from.Before(r.At) && s.to.Add(lastProbe).After(due) }) {
			m.inReach = min(m.inReach, left)
			m.renewals++
		}
	}
	return m
}

// party is an agent. The certificate is the one that it came with. Only the
// agent's names are read: the rest is replaced when its certificate is renewed.
func (c *chronicle) party(agent int, as fleet.Identity) history.Party {
	a := &c.site.Agents[agent]
	return history.Party{Tenant: a.Tenant, User: site.Login, Agent: a.Name, Certificate: as.Serial}
}

// Streamed implements fleet.Journal.
func (c *chronicle) Streamed(agent int, s fleet.Streamed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.Welcomed.IsZero() {
		return
	}
	c.history.Streams = append(c.history.Streams, history.Stream{
		Party: c.party(agent, s.Identity), ID: int(s.ID), Asked: s.Asked, Welcomed: s.Welcomed, Ended: s.Ended, Reason: s.Reason, Left: s.Left,
	})
}

// Received implements fleet.Journal.
func (c *chronicle) Received(agent int, r fleet.Receipt) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.party(agent, r.Identity)
	p.Grant, p.Credential = r.Grant, r.ID
	c.history.Received = append(c.history.Received, history.Received{
		Party: p, Stream: int(r.Stream), Asked: r.Asked, At: r.At, AccessKeyID: r.AccessKeyID, Prefix: r.Prefix,
		Issued: r.Issued, Expires: r.Expires, CertificateEnd: r.CertificateEnd,
	})
}

// judge adds the audit trail, which it verifies, and checks the history. No
// broker and no agent is left.
func (c *chronicle) judge(ctx context.Context, s *site.Site) (violations []history.Violation, records, faults int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	report, err := s.Review(ctx, func(r storage.AuditRecord) {
		records++
		if r.Event != string(audit.CredentialIssued) && r.Event != string(audit.CredentialRenewed) {
			return
		}
		c.history.Recorded = append(c.history.Recorded, history.Recorded{
			Party: history.Party{
				Tenant: r.Tenant, User: r.Login, Agent: r.Agent, Grant: r.Grant,
				Certificate: r.CertificateSerial, Session: r.SessionID, Credential: r.CredentialID,
			},
			At: r.Time, AccessKeyID: r.AccessKeyID, Expires: r.Expires,
		})
	})
	if err != nil {
		return nil, records, 0, err
	}
	for _, chain := range report.Chains {
		faults += len(chain.Faults)
	}
	return c.history.Check(), records, faults, nil
}
