package fleet

import "time"

// Journal is told what agents see, each thing once and from any goroutine. Its
// methods must not wait.
type Journal interface {
	// Streamed tells of a stream that is over.
	Streamed(agent int, s Streamed)
	// Received tells of a credential.
	Received(agent int, r Receipt)
}

// Streamed is a stream that is over.
type Streamed struct {
	Identity
	// ID counts the fleet's streams from 1.
	ID int64
	// Asked is when the agent began to connect, Welcomed when the broker had
	// answered (zero: it never did), Ended when it was over.
	Asked, Welcomed, Ended time.Time
	// Reason is what the agent was told. Left: nothing, because it left itself
	// or lost the connection.
	Reason string
	Left   bool
}

// Receipt is a credential that an agent received.
type Receipt struct {
	Identity
	Stream                         int64
	Asked, At                      time.Time
	ID, Grant, AccessKeyID, Prefix string
	Issued, Expires                time.Time
}
