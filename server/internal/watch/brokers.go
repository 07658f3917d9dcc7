package watch

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/storage"
)

const (
	// wordEvery is how long a broker that runs may write nothing: each writes a
	// checkpoint a day.
	wordEvery = 25 * time.Hour
	// earlyRecords is among how many of a broker's first ones its start is.
	earlyRecords = 16
)

// Broker is a process that shares the storage.
type Broker struct {
	// Writer is the name of its chain.
	Writer        string
	Started, Last time.Time
}

// begin is what the first records of a writer tell.
type begin struct {
	broker  bool
	started time.Time
}

// Brokers lists the brokers that run, as far as the trail tells: those that
// have written within wordEvery and have not written that they stopped. One
// that was killed is listed for that long.
func (w *Watcher) Brokers(ctx context.Context) ([]Broker, error) {
	heads, err := w.look(ctx, interval/2)
	if err != nil {
		return nil, err
	}
	var found []Broker
	for _, head := range heads {
		last, err := w.end(ctx, head)
		if err != nil {
			return nil, err
		}
		if time.Since(last.time) > wordEvery || last.event == string(audit.BrokerStopped) {
			continue
		}
		first, err := w.begun(ctx, head)
		if err != nil {
			return nil, err
		}
		if first.broker {
			found = append(found, Broker{Writer: head.Writer, Started: first.started, Last: last.time})
		}
	}
	slices.SortFunc(found, func(a, b Broker) int { return a.Started.Compare(b.Started) })
	return found, nil
}

// begun says whether a writer is a broker: commands that work on storage write
// chains too. One whose beginning was trimmed has run for too long for those.
func (w *Watcher) begun(ctx context.Context, head storage.AuditHead) (begin, error) {
	w.mu.Lock()
	known, ok := w.begins[head.Writer]
	w.mu.Unlock()
	if ok {
		return known, nil
	}
	found, err := w.trail.AuditChain(ctx, head.Writer, head.First, earlyRecords)
	if err != nil {
		return begin{}, failed(ctx, err)
	}
	i := slices.IndexFunc(found, func(r storage.AuditRecord) bool { return r.Event == string(audit.BrokerStarted) })
	switch {
	case i >= 0:
		known = begin{broker: true, started: found[i].Time}
	case head.First > 1:
		known = begin{broker: true, started: madeAt(head.Writer)}
	case len(found) < earlyRecords:
		return begin{}, nil // it may have only just begun
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begins[head.Writer] = known
	return known, nil
}

// madeAt reads the time out of a writer's name, a UUIDv7.
func madeAt(writer string) time.Time {
	id, err := uuid.Parse(writer)
	if err != nil || id.Version() != 7 {
		return time.Time{}
	}
	seconds, nanoseconds := id.Time().UnixTime()
	return time.Unix(seconds, nanoseconds).UTC()
}
