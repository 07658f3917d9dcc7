package lease

// A lease stands in at most one place of each kind of queue.
const (
	inTimers  = iota // the manager's timers, by the next moment that matters
	inReady          // an account's due leases, by when the holder runs dry
	inDry            // an account's due leases whose holder has run dry, likewise
	inWaiting        // an account's leases that wait after a failure, in no order
	queueKinds
)

// queue is a heap of leases with a number of children that suits the cache.
// A lease knows its place in it, so that moving one costs no search. The
// manager's queues lock guards all queues.
type queue struct {
	kind  int
	items []entry
}

type entry struct {
	at    instant
	lease *lease
}

// children is the heap's width.
const children = 4

func (q *queue) len() int { return len(q.items) }

// head is the earliest entry; there must be one.
func (q *queue) head() entry { return q.items[0] }

// put adds the lease, or moves it to its new time.
func (q *queue) put(l *lease, at instant) {
	if i := int(l.place[q.kind]) - 1; i >= 0 {
		q.items[i].at = at
		q.up(q.down(i))
		return
	}
	q.items = append(q.items, entry{at, l})
	l.place[q.kind] = int32(len(q.items))
	q.up(len(q.items) - 1)
}

// drop removes the lease if it is there.
func (q *queue) drop(l *lease) {
	i := int(l.place[q.kind]) - 1
	if i < 0 {
		return
	}
	last := len(q.items) - 1
	q.set(i, q.items[last])
	l.place[q.kind] = 0
	q.items[last] = entry{}
	q.items = q.items[:last]
	if i < last {
		q.up(q.down(i))
	}
	// A storm's queue must not keep its memory for good.
	if cap(q.items) > 1024 && last < cap(q.items)/4 {
		q.items = append(make([]entry, 0, cap(q.items)/2), q.items...)
	}
}

func (q *queue) set(i int, e entry) {
	q.items[i] = e
	e.lease.place[q.kind] = int32(i + 1)
}

func (q *queue) up(i int) {
	e := q.items[i]
	for i > 0 {
		parent := (i - 1) / children
		if q.items[parent].at <= e.at {
			break
		}
		q.set(i, q.items[parent])
		i = parent
	}
	q.set(i, e)
}

// down sinks the entry and gives where it came to rest.
func (q *queue) down(i int) int {
	e := q.items[i]
	for {
		first := i*children + 1
		if first >= len(q.items) {
			break
		}
		least := first
		for c := first + 1; c < min(first+children, len(q.items)); c++ {
			if q.items[c].at < q.items[least].at {
				least = c
			}
		}
		if q.items[least].at >= e.at {
			break
		}
		q.set(i, q.items[least])
		i = least
	}
	q.set(i, e)
	return i
}
