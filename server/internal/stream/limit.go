package stream

import "time"

const (
	// maxGrants bounds the grants of one subscription, and of one stream.
	maxGrants = 100
	// perService is how many streams a service may have open here.
	perService = 1000
	// maxClient bounds what an agent says that it runs, in characters.
	maxClient = 128
	// maxErrorCode bounds S3's error code in a report, in characters.
	maxErrorCode = 64
	// maxName bounds a grant's name, in bytes: no grant has a longer one.
	maxName = 63
	// An agent may send messageBurst messages at once and one every
	// messageEvery after that. An acknowledgement for each of a stream's
	// grants, twice over, fits in the burst.
	messageBurst = 200
	messageEvery = 100 * time.Millisecond
	// firstMessage is how long an agent may take to subscribe.
	firstMessage = 15 * time.Second
	// stallLimit is how long one message may wait for an agent that does not
	// read, once all buffers on the way are full.
	stallLimit = 30 * time.Second
)

// bucket limits messages. Its one word is the moment at which the bucket would
// be full again.
type bucket struct{ full time.Duration }

// take says whether one more message is within the limit at the moment, which
// never goes back.
func (b *bucket) take(now time.Duration) bool {
	full := max(b.full, now) + messageEvery
	if full-now > messageBurst*messageEvery {
		return false
	}
	b.full = full
	return true
}
