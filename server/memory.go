package server

import (
	"os"
	"runtime/debug"
)

// garbagePercent is how much the process allocates, in parts of what is alive,
// before garbage is collected. Go's own 100 is for programs whose garbage lies
// apart from what stays; of what thousands of streams leave behind that come at
// once, a third of each page stays. With 50 a stream takes 6 KiB less, and a
// connection a tenth more of the processor's time. docs/scale.md has the
// figures.
const garbagePercent = 50

// saveMemory sets how often the process collects garbage, unless the
// environment does.
func saveMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
}
