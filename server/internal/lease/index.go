package lease

import "github.com/stokerd/stoker/server/internal/storage"

// What subscriptions are found by when something changes.
const (
	byTenant = iota
	byUser
	byAgent
	byGrant
	byLocation
	bySerial
	bySession
	indexKinds
)

// kindIndex says which index a change's id belongs to. Certificates and
// revocations are resolved first.
var kindIndex = map[storage.Kind]int{
	storage.KindTenant:   byTenant,
	storage.KindUser:     byUser,
	storage.KindAgent:    byAgent,
	storage.KindGrant:    byGrant,
	storage.KindLocation: byLocation,
	storage.KindSession:  bySession,
}

// index finds subscriptions by what they depend on. Each subscription knows
// its places, so that taking one of a tenant's many thousands out costs the
// same as one of few. The manager's mu guards it.
type index [indexKinds]map[string][]*Subscription

func (x *index) init() {
	for kind := range x {
		x[kind] = make(map[string][]*Subscription)
	}
}

// add files the subscription; an empty key files nothing.
func (x *index) add(kind int, key string, s *Subscription) {
	if key == "" {
		return
	}
	x[kind][key] = append(x[kind][key], s)
	s.place[kind] = int32(len(x[kind][key]))
}

// remove takes the subscription out, if it is in.
func (x *index) remove(kind int, key string, s *Subscription) {
	i := int(s.place[kind]) - 1
	if i < 0 {
		return
	}
	list := x[kind][key]
	last := len(list) - 1
	list[i] = list[last]
	list[i].place[kind] = int32(i + 1)
	list[last] = nil
	s.place[kind] = 0
	if last == 0 {
		delete(x[kind], key)
		return
	}
	x[kind][key] = list[:last]
}

// keys are what a subscription is filed under from its beginning. The location
// comes with the first entitlement.
func (s *Subscription) keys() [indexKinds]string {
	return [indexKinds]string{
		byTenant:   s.holder.TenantID,
		byUser:     s.holder.UserID,
		byAgent:    s.holder.AgentID,
		byGrant:    s.lease.key.grant,
		byLocation: s.location,
		bySerial:   s.holder.Certificate.Serial,
		bySession:  s.holder.SessionID,
	}
}
