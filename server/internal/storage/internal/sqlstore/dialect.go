package sqlstore

// Fault is what a driver's error means.
type Fault int

// The faults a driver reports. Whatever is none of the others means that the
// database cannot serve.
const (
	FaultUnavailable Fault = iota
	// FaultTaken is a violated unique constraint.
	FaultTaken
	// FaultReference is a violated foreign key.
	FaultReference
	// FaultRepeat asks for the transaction, or the query, to be tried again:
	// it met another one, or its connection had been lost.
	FaultRepeat
)

// Dialect is what databases do differently. Queries are written with the
// parameters $1, $2 and so on, which all drivers used here understand.
type Dialect struct {
	// LockFeed is run first in a transaction that will move the feed. It
	// waits for the transactions that hold the feed still and for others that
	// move it, in order of arrival. Empty where beginning does this.
	LockFeed string
	// HoldFeed is run first in a transaction during which the feed must not
	// move. Empty where beginning does this.
	HoldFeed string
	// Announce is run last in a transaction that moved the feed, so that other
	// replicas hear of the commit. Empty where there are none.
	Announce string
	// Fault says what a driver's error means.
	Fault func(error) Fault
	// InDoubt says whether a commit that failed with this error may have
	// taken effect all the same.
	InDoubt func(error) bool
	// Text describes a driver's error to people. It holds no secret.
	Text func(error) string
	// MaxRows bounds the rows of an insert: 1 where a statement costs no round
	// trip, more where it does, a power of two.
	MaxRows int
	// Unnumbered says that the parameters of inserts are cheaper written ? than
	// $1, $2 and so on, which the driver takes for names to look up.
	Unnumbered bool
	// PrepareHot says that the driver itself does not remember statements, so
	// that the hot ones are prepared beforehand.
	PrepareHot bool
}
