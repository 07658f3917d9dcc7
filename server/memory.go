package server

import (
	"os"
	"runtime/debug"
)

// garbagePercent is how much the process allocates, in parts of what is alive,
// before garbage is collected. What is allocated while thousands of agents come
// at once lies among what stays, so that the memory it took is not free again
// afterwards: the less of it there is at a time, the less a stream takes. At
// Go's own 100 that is 5 KiB more; below 50 a storm of agents costs a tenth more
// of the processor.
const garbagePercent = 50

// saveMemory sets how often the process collects garbage, unless the
// environment does.
func saveMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
}
