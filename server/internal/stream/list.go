package stream

import (
	"bytes"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/stokerd/stoker/server/internal/lease"
	"github.com/stokerd/stoker/server/internal/reason"
)

// Filter selects streams; empty fields select all.
type Filter struct {
	// Tenant and Agent are names, the others ids.
	Tenant, Agent             string
	TenantID, UserID, AgentID string
	// CertificateSerial is lower-case hexadecimal.
	CertificateSerial string
}

func (f Filter) selects(s *Stream) bool {
	p := s.principal
	for _, pair := range [...][2]string{
		{f.Tenant, p.Tenant}, {f.Agent, p.Agent},
		{f.TenantID, p.TenantID}, {f.UserID, p.UserID}, {f.AgentID, p.AgentID},
		{f.CertificateSerial, p.Certificate.Serial},
	} {
		if pair[0] != "" && pair[0] != pair[1] {
			return false
		}
	}
	return true
}

// Info is what people may know of a stream.
type Info struct {
	ID string
	// Ids and names, as at the opening.
	TenantID, Tenant string
	AgentID, Agent   string
	UserID, Login    string
	// Service and Purpose are set for a service's stream.
	Service, Purpose string
	// Peer is the agent's network address.
	Peer string
	// Client is what the agent says that it runs.
	Client            string
	CertificateSerial string
	// CertificateFrom and CertificateTo are the certificate's life.
	CertificateFrom, CertificateTo time.Time
	Opened                         time.Time
	// Grants are ordered by name.
	Grants []GrantInfo
	// Pending counts the messages that wait to be sent, with the one that the
	// transport has not taken yet.
	Pending int
}

// GrantInfo is one grant of a stream.
type GrantInfo struct {
	Grant string
	// CredentialID is what the agent has; empty: nothing yet.
	CredentialID string
	Expires      time.Time
	// Acknowledged is zero if the agent has not acknowledged the credential.
	Acknowledged time.Time
}

// Count says how many streams the filter selects.
func (r *Registry) Count(f Filter) int { return len(r.selected(f)) }

// selected gives the open streams that the filter selects.
func (r *Registry) selected(f Filter) []*Stream {
	return slices.DeleteFunc(r.everyone(), func(s *Stream) bool { return !f.selects(s) })
}

// List gives at most limit of the streams that the filter selects, oldest
// first, from the one after that with the id; empty starts at the oldest. more
// says whether there are others behind. INVALID_REQUEST: after is no stream's
// id.
func (r *Registry) List(f Filter, after string, limit int) (infos []Info, more bool, err error) {
	streams := r.selected(f)
	if after != "" {
		from, err := uuid.Parse(after)
		if err != nil {
			return nil, false, reason.New(reason.InvalidRequest, "page_token: not one of this list").Because(err)
		}
		// Ids are ordered by time, also those of streams that have ended since.
		streams = slices.DeleteFunc(streams, func(s *Stream) bool { return bytes.Compare(s.id[:], from[:]) <= 0 })
	}
	slices.SortFunc(streams, func(a, b *Stream) int { return bytes.Compare(a.id[:], b.id[:]) })
	if more = len(streams) > limit; more {
		streams = streams[:limit]
	}
	for _, s := range streams {
		infos = append(infos, s.info())
	}
	return infos, more, nil
}

func (s *Stream) info() Info {
	// Subscriptions stay as they are while their leases are asked.
	s.changing.Lock()
	defer s.changing.Unlock()
	resumed := s.resumed()
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.principal
	info := Info{
		ID: s.ID(), TenantID: p.TenantID, Tenant: p.Tenant, AgentID: p.AgentID, Agent: p.Agent, UserID: p.UserID, Login: p.Login,
		Peer: p.Address, Client: s.client, CertificateSerial: p.Certificate.Serial,
		CertificateFrom: p.Certificate.NotBefore, CertificateTo: p.Certificate.NotAfter,
		Opened: s.opened, Pending: s.outbox.pending(),
	}
	if s.serves() {
		info.Service, info.Purpose = p.Name, p.Purpose
	}
	if s.sending {
		info.Pending++
	}
	for _, e := range s.entries {
		if !e.wanted && e.supply == nil {
			continue
		}
		g := GrantInfo{Grant: e.name, CredentialID: e.credentialID, Expires: e.expires, Acknowledged: e.acknowledged}
		if held, ok := resumed[e]; ok && g.CredentialID == "" && e.credential == nil {
			g.CredentialID, g.Expires = held.CredentialID, held.Expires
		}
		info.Grants = append(info.Grants, g)
	}
	return info
}

// resumed finds what the leases have accepted of the credentials that the agent
// said it held: nothing was sent for those. changing is held.
func (s *Stream) resumed() map[*entry]lease.Supply {
	var resumed map[*entry]lease.Supply
	for _, e := range s.entries {
		if e.supply == nil {
			continue
		}
		if supply := e.supply.subscription.Supply(); supply.CredentialID != "" {
			if resumed == nil {
				resumed = make(map[*entry]lease.Supply, len(s.entries))
			}
			resumed[e] = supply
		}
	}
	return resumed
}
