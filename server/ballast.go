package server

import (
	"os"
	"sync"
)

// ballastSize is memory that a broker has and never touches, in bytes, so that
// the system has none for it.
//
// How often garbage is collected goes by what is alive. A broker with few
// streams has little, and would collect the garbage of its unary calls every
// two megabytes, which took a quarter of each. With this there are six more
// between two collections, at any number of streams.
const ballastSize = 16 << 20

// ballast is kept for as long as the process lives.
var ballast []byte

// takeBallast does, once, unless the environment says how often garbage is to
// be collected.
var takeBallast = sync.OnceFunc(func() {
	if os.Getenv("GOGC") == "" {
		ballast = make([]byte, ballastSize)
	}
})
