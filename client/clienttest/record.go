package clienttest

import (
	"slices"
	"time"
)

// record is what the broker has heard.
type record struct {
	logins        int
	refused       int
	subscriptions []Subscription
	acknowledged  []string
	reports       []Report
}

// Subscription is how an agent opened a stream.
type Subscription struct {
	Grants []string
	Held   []Held
	Client string
}

// Held is a credential that the agent said it holds.
type Held struct {
	ID, Grant string
	Expires   time.Time
}

// Report is a credential that the agent said S3 refused.
type Report struct{ CredentialID, ErrorCode string }

// Logins counts the logins that were accepted.
func (b *Broker) Logins() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.record.logins
}

// RefusedLogins counts the logins that were refused.
func (b *Broker) RefusedLogins() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.record.refused
}

// Streams counts the streams that are open.
func (b *Broker) Streams() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.streams)
}

// Subscriptions gives how each stream so far was opened.
func (b *Broker) Subscriptions() []Subscription {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.record.subscriptions)
}

// Acknowledged gives the ids of the acknowledged credentials, in order.
func (b *Broker) Acknowledged() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.record.acknowledged)
}

// Reports gives the credentials that S3 is said to have refused, in order.
func (b *Broker) Reports() []Report {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.record.reports)
}
