package stream

import (
	"context"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/stokerd/stoker/server/internal/lease"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// supply is one subscription to a lease, and what that delivers to.
type supply struct {
	stream  *Stream
	entry   *entry
	grantID string
	// subscription is guarded by Stream.changing.
	subscription Subscription
}

// Deliver files the event, unless the stream has given the subscription up.
func (u *supply) Deliver(event lease.Event) {
	s := u.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended && u.entry.supply == u {
		s.outbox.file(u.entry, event)
		s.start()
	}
}

// Cause implements lease.Traced: it is the call's context, where the
// connection tells it.
func (u *supply) Cause() context.Context {
	if c, ok := u.stream.conn.(lease.Traced); ok {
		return c.Cause()
	}
	return context.Background()
}

// apply adds the grants and asks the leases for them.
func (m Subscribe) apply(s *Stream) error {
	if err := m.check(); err != nil {
		return err
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	held := make(map[string]*lease.Held, len(m.Held))
	names := m.Grants
	for i := range m.Held {
		held[m.Held[i].Grant] = &m.Held[i].Credential
		if len(m.Grants) == 0 {
			// What the agent holds and the user has no more counts as asked
			// for by name, so that the agent is told about it.
			names = append(names, m.Held[i].Grant)
		}
	}
	if err := s.want(names, len(m.Grants) == 0); err != nil {
		return err
	}
	s.begin(m.Client)
	s.compare(held)
	return nil
}

func (m Subscribe) check() error {
	switch {
	case len(m.Grants) > maxGrants:
		return reason.New(reason.InvalidRequest, "subscribe.grants: name at most %d", maxGrants)
	case len(m.Held) > maxGrants:
		return reason.New(reason.InvalidRequest, "subscribe.held: list at most %d credentials", maxGrants)
	case !readable(m.Client, maxClient):
		return reason.New(reason.InvalidRequest, "subscribe.client: at most %d printable characters", maxClient)
	}
	seen := make(map[string]struct{}, len(m.Held))
	for i, h := range m.Held {
		if _, twice := seen[h.Grant]; twice {
			return reason.New(reason.InvalidRequest, "subscribe.held[%d].grant: list one credential a grant", i)
		}
		seen[h.Grant] = struct{}{}
		if !validName(h.Grant) {
			return reason.New(reason.InvalidRequest, "subscribe.held[%d].grant: not a grant's name", i)
		}
		if !validID(h.Credential.ID) {
			return reason.New(reason.InvalidRequest, "subscribe.held[%d].id: not a credential's id", i)
		}
	}
	return CheckNames("subscribe.grants", m.Grants)
}

// CheckNames says which of the names in a request's field no grant can have.
func CheckNames(field string, names []string) error {
	for i, name := range names {
		if !validName(name) {
			return reason.New(reason.InvalidRequest, "%s[%d]: not a grant's name", field, i)
		}
	}
	return nil
}

// validName says whether a grant can have the name.
func validName(name string) bool {
	if name == "" || len(name) > maxName || name[0] == '-' {
		return false
	}
	return strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// validID says whether a credential can have the id.
func validID(id string) bool {
	return len(id) == len(uuid.UUID{}.String()) && uuid.Validate(id) == nil
}

// readable says whether the text is no longer than so many characters and can
// be shown to people as it is.
func readable(text string, characters int) bool {
	return utf8.ValidString(text) && utf8.RuneCountInString(text) <= characters &&
		!strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
}

// want makes an entry for each name. changing is held.
func (s *Stream) want(names []string, all bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		if e := s.entry(name); e != nil {
			e.wanted, e.missing = true, false // asked again, told again
		} else {
			s.add(&entry{name: name, wanted: true})
		}
		delete(s.excluded, name)
	}
	if len(s.entries) > maxGrants && s.carried() > maxGrants {
		return reason.New(reason.InvalidRequest, "subscribe.grants: a stream carries at most %d grants; open another", maxGrants)
	}
	if all {
		s.all, s.excluded = true, nil
	}
	return nil
}

// carried counts the grants that are wanted or supplied. mu is held.
func (s *Stream) carried() int {
	n := 0
	for _, e := range s.entries {
		if e.wanted || e.supply != nil {
			n++
		}
	}
	return n
}

// entry finds an entry by the grant's name. changing or mu is held.
func (s *Stream) entry(name string) *entry {
	if i, found := s.search(name); found {
		return s.entries[i]
	}
	return nil
}

func (s *Stream) search(name string) (int, bool) {
	return slices.BinarySearchFunc(s.entries, name, func(e *entry, name string) int { return strings.Compare(e.name, name) })
}

// add puts the entry in its place. changing and mu are held.
func (s *Stream) add(e *entry) {
	i, _ := s.search(e.name)
	s.entries = slices.Insert(s.entries, i, e)
}

// begin notes what the agent runs, and with the first subscription welcomes it.
func (s *Stream) begin(client string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if client != "" {
		s.client = client
	}
	if s.subscribed || s.ended {
		return
	}
	now := s.registry.clock()
	s.subscribed, s.outbox.welcome = true, true
	s.nextBeat = s.registry.beatAfter(now, s.phase)
	s.schedule(now)
	s.start()
}

// settle compares the subscriptions with the directory after a change.
func (s *Stream) settle() {
	s.changing.Lock()
	defer s.changing.Unlock()
	s.compare(nil)
}

// compare gives up the subscriptions that the user has no grant for any more,
// and makes those that are due. changing is held.
func (s *Stream) compare(held map[string]*lease.Held) {
	s.tidy()
	for _, e := range slices.Clone(s.entries) {
		s.compareEntry(e, held)
	}
	if !s.all {
		return
	}
	overfull := false
	for _, g := range s.registry.Directory.GrantsFor(s.principal.TenantID, s.principal.UserID) {
		if _, excluded := s.excluded[g.Name]; g.Disabled || excluded || s.entry(g.Name) != nil {
			continue
		}
		s.mu.Lock()
		full := s.carried() >= maxGrants || len(s.entries) >= 2*maxGrants
		e := &entry{name: g.Name}
		if !full {
			s.add(e)
		}
		s.mu.Unlock()
		if full {
			overfull = true
			break
		}
		s.supply(e, g, held[g.Name])
	}
	if overfull && !s.overfull {
		s.complain(reason.New(reason.InvalidRequest,
			"the user has more grants than the %d that a stream carries; subscribe by name, on several streams", maxGrants))
	}
	s.overfull = overfull
}

// tidy drops entries that stand for nothing any more. changing is held.
func (s *Stream) tidy() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries = slices.DeleteFunc(s.entries, func(e *entry) bool {
		return !e.wanted && e.supply == nil && e.waiting() == 0
	})
}

// compareEntry brings one entry's subscription in line. changing is held.
func (s *Stream) compareEntry(e *entry, held map[string]*lease.Held) {
	g, why := Find(s.registry.Directory, *s.principal, e.name)
	switch {
	case e.supply == nil:
	case why == nil && e.supply.grantID == g.ID:
		return
	default:
		s.lose(e)
	}
	switch {
	case why == nil && (e.wanted || s.all):
		s.supply(e, g, held[e.name])
	case why != nil && e.wanted && !e.missing:
		e.missing = true
		s.file(e, lease.Event{Problem: &lease.Problem{Grant: e.name, Err: why}})
	}
}

// supply subscribes to the grant's lease. changing is held.
func (s *Stream) supply(e *entry, g storage.Grant, held *lease.Held) {
	u := &supply{stream: s, entry: e, grantID: g.ID}
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return
	}
	e.supply, e.missing, e.withdrawn = u, false, false
	s.mu.Unlock()
	s.registry.watch(g)
	u.subscription = s.registry.Leases.Subscribe(HolderOf(*s.principal), g.ID, held, u)
	if _, ok := s.registry.Directory.Grant(g.ID); !ok {
		// It went before it was watched: nobody else will tell.
		s.unsettle()
	}
}

// giveUp ends the entry's subscription. changing is held.
func (s *Stream) giveUp(e *entry) {
	u := e.supply
	s.mu.Lock()
	e.supply = nil
	s.mu.Unlock()
	u.subscription.Close()
	s.registry.unwatch(u.grantID)
}

// lose gives up a grant that the user does not have any more, and tells the
// agent, unless its lease has. changing is held.
func (s *Stream) lose(e *entry) {
	lost := e.supply.grantID
	s.giveUp(e)
	s.mu.Lock()
	told := e.withdrawn
	e.credential, e.problem, e.missing = nil, nil, true
	s.mu.Unlock()
	if !told {
		why := reason.New(reason.GrantDeleted, "the grant was taken away; stop using its credentials").With("grant", e.name)
		s.file(e, lease.Event{Revoked: &lease.Revoked{GrantID: lost, Grant: e.name, Err: why}})
	}
}

// giveUpAll ends all subscriptions of a stream that has ended.
func (s *Stream) giveUpAll() {
	s.changing.Lock()
	defer s.changing.Unlock()
	for _, e := range s.entries {
		if e.supply != nil {
			s.giveUp(e)
		}
	}
}

// apply drops the grants and whatever waits to be sent about them.
func (m Unsubscribe) apply(s *Stream) error {
	if len(m.Grants) == 0 || len(m.Grants) > maxGrants {
		return reason.New(reason.InvalidRequest, "unsubscribe.grants: name 1 to %d grants", maxGrants)
	}
	if err := CheckNames("unsubscribe.grants", m.Grants); err != nil {
		return err
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	for _, name := range m.Grants {
		if err := s.exclude(name); err != nil {
			return err
		}
		e := s.entry(name)
		if e == nil {
			continue
		}
		if e.supply != nil {
			s.giveUp(e)
		}
		s.mu.Lock()
		e.wanted = false
		e.clear()
		s.mu.Unlock()
	}
	s.tidy()
	// A stream that was full may have room for another grant now.
	s.compare(nil)
	return nil
}

// exclude keeps a stream of all grants from subscribing again. changing is
// held.
func (s *Stream) exclude(name string) error {
	if !s.all {
		return nil
	}
	if s.excluded == nil {
		s.excluded = map[string]struct{}{}
	}
	s.excluded[name] = struct{}{}
	if len(s.excluded) > maxGrants {
		return reason.New(reason.InvalidRequest, "unsubscribe.grants: a stream of all grants leaves out at most %d; subscribe by name", maxGrants)
	}
	return nil
}
