package carrier

import (
	"fmt"
	"runtime/debug"
)

// Apart runs f on a goroutine of its own and waits for it.
//
// A goroutine's stack never becomes smaller again than what it waits with takes
// four times over, and that of a stream's handler waits for as long as the
// stream is open. What needs much of it, once, is done elsewhere. A panic of f
// is one of the caller.
func Apart(f func() error) error {
	type outcome struct {
		err   error
		panic any
	}
	done := make(chan outcome, 1)
	go func() {
		o := outcome{panic: "it ended its goroutine"}
		defer func() {
			if p := recover(); p != nil {
				o.panic = fmt.Sprintf("%v\n%s", p, debug.Stack())
			}
			done <- o
		}()
		o.err = f()
		o.panic = nil
	}()
	o := <-done
	if o.panic != nil {
		panic(o.panic)
	}
	return o.err
}
