package devsts

import (
	"slices"
	"time"
)

// Tag is one session tag.
type Tag struct{ Key, Value string }

// Issued is what the STS remembers of a credential. The secret key and the
// session token are not in it.
type Issued struct {
	RequestID   string
	Action      string
	AccessKeyID string
	// Caller and ARN are whose key asked and whose session came of it.
	Caller, ARN string
	// Name is the session's; Role is empty for federated users.
	Name, Role     string
	Policy         string
	Tags           []Tag
	SourceIdentity string
	IssuedAt       time.Time
	Expires        time.Time
	// PackedPolicySize is in percent.
	PackedPolicySize int
}

// Issued gives the last credentials, at most Config.IssuedLimit of them, the
// oldest first.
func (s *STS) Issued() []Issued {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.issued.all()
}

// record remembers the credential and tells who wants to know.
func (s *STS) record(i Issued) {
	s.mu.Lock()
	s.issued.add(i)
	s.mu.Unlock()
	if s.config.OnIssue != nil {
		i.Tags = slices.Clone(i.Tags)
		s.config.OnIssue(i)
	}
}

// ring keeps the last entries, up to its limit.
type ring struct {
	limit   int
	entries []Issued
	next    int // where the oldest is, once the ring is full
}

func (r *ring) add(i Issued) {
	if len(r.entries) < r.limit {
		r.entries = append(r.entries, i)
		return
	}
	r.entries[r.next] = i
	r.next = (r.next + 1) % r.limit
}

func (r *ring) all() []Issued {
	all := make([]Issued, 0, len(r.entries))
	all = append(all, r.entries[r.next:]...)
	all = append(all, r.entries[:r.next]...)
	for i := range all {
		all[i].Tags = slices.Clone(all[i].Tags)
	}
	return all
}
