package audit

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/stokerd/stoker/server/internal/storage"
)

// broker is the actor of what the trail records by itself.
const broker = "broker"

// chain is where a writer stands. It moves only when a commit has succeeded.
type chain struct {
	// head is sealed, except before the first record.
	head storage.AuditHead
	// time is that of the last record.
	time time.Time
	// doubt says that storage may stand elsewhere than head: a commit or a
	// trim did not answer that it succeeded.
	doubt bool
	// checkpoint, if set, is to be stored before anything else.
	checkpoint *storage.AuditRecord
}

// newChain is the chain of a new writer, which notes where the others stand,
// and which chain is before it in the second sink.
func newChain(heads []storage.AuditHead, seals sealer, sinkAfter string) (chain, error) {
	writer, err := uuid.NewV7()
	if err != nil {
		return chain{}, fmt.Errorf("make a writer id: %w", err)
	}
	first := checkpointOf(writer.String(), heads, seals)
	if sinkAfter != "" {
		first.Detail[sinkKey] = sinkAfter
	}
	return chain{head: storage.AuditHead{Writer: writer.String(), First: 1}, checkpoint: &first}, nil
}

// draft is what a commit would store, and how the chain would stand then.
type draft struct {
	batch storage.AuditBatch
	time  time.Time
	// places says which of the batch's records is which request's; -1: its
	// fence is stale.
	places []int
	stale  int
	buffer []byte // for hashes
}

// draft makes a batch of the trail's own records and the requests. It changes
// neither: storage may ask for another draft.
func (c chain) draft(seals sealer, feed int64, own []storage.AuditRecord, requests []*request, now time.Time) draft {
	d := draft{places: make([]int, len(requests)), time: c.stamp(now)}
	d.batch.Head = c.head
	d.batch.Records = make([]storage.AuditRecord, 0, len(own)+len(requests))
	for _, record := range own {
		d.append(record)
	}
	for i, r := range requests {
		// A feed that is behind the fence was restored to an older state:
		// the decision may rest on what is no more.
		if r.fence >= 0 && r.fence != feed {
			d.places[i] = -1
			d.stale++
			continue
		}
		d.places[i] = len(d.batch.Records)
		d.append(r.record)
	}
	if len(d.batch.Records) == 0 {
		return draft{places: d.places, stale: d.stale, time: c.time}
	}
	d.batch.Head = seals.seal(d.batch.Head)
	return d
}

// stamp is the time for the next records: now, but a clock that is set back by
// an instant must not disturb the order.
func (c chain) stamp(now time.Time) time.Time {
	now = boundTime(now)
	if back := c.time.Sub(now); back > 0 && back < time.Second {
		return c.time
	}
	return now
}

func (d *draft) append(r storage.AuditRecord) {
	h := &d.batch.Head
	r.Writer, r.Sequence, r.Time, r.PrevHash = h.Writer, h.Sequence+1, d.time, h.Hash
	r.Hash, d.buffer = hashIn(d.buffer, &r)
	h.Sequence, h.Hash = r.Sequence, r.Hash
	d.batch.Records = append(d.batch.Records, r)
}

// link is one writer's position as another one noted it: the chain had this
// record.
type link struct {
	writer   string
	sequence int64
	hash     string
}

const (
	// linkPrefix begins the details of a checkpoint that hold its links: the
	// other writer follows, and the value is its sequence and hash.
	linkPrefix = "head."
	// sinkKey is the detail of a chain's first record that names the chain
	// before it in the second sink.
	sinkKey = "sink_after"
	// maxLinks is how many of the newest other chains a checkpoint notes:
	// more than replicas that start at once and cannot see each other.
	maxLinks = 16
)

// checkpointOf notes where the newest chains besides the writer's own stand.
// Heads that are not sealed say nothing.
func checkpointOf(writer string, heads []storage.AuditHead, seals sealer) storage.AuditRecord {
	heads = slices.DeleteFunc(byWriter(heads), func(h storage.AuditHead) bool {
		return h.Writer == writer || !seals.sealed(h)
	})
	detail := make(map[string]string)
	for _, h := range heads[max(0, len(heads)-maxLinks):] {
		detail[linkPrefix+h.Writer] = fmt.Sprintf("%d %s", h.Sequence, h.Hash)
	}
	return storage.AuditRecord{Event: string(AuditCheckpoint), Actor: broker, Detail: detail}
}

// byWriter gives the heads in the order in which their chains began.
func byWriter(heads []storage.AuditHead) []storage.AuditHead {
	return slices.SortedFunc(slices.Values(heads), func(a, b storage.AuditHead) int { return strings.Compare(a.Writer, b.Writer) })
}

// links reads what checkpointOf wrote; other records have none. The details
// are under the record's hash.
func links(r storage.AuditRecord) []link {
	if r.Event != string(AuditCheckpoint) {
		return nil
	}
	var found []link
	for key, value := range r.Detail {
		writer, ok := strings.CutPrefix(key, linkPrefix)
		number, hash, both := strings.Cut(value, " ")
		sequence, err := strconv.ParseInt(number, 10, 64)
		if ok && both && err == nil {
			found = append(found, link{writer, sequence, hash})
		}
	}
	return found
}
