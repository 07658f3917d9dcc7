package server

import (
	"runtime/debug"
	"testing"
)

func TestSaveMemory(t *testing.T) {
	const before = 111
	for environment, want := range map[string]int{"": garbagePercent, "200": before, "off": before} {
		t.Run("GOGC="+environment, func(t *testing.T) {
			t.Setenv("GOGC", environment)
			old := debug.SetGCPercent(before)
			saveMemory()
			if got := debug.SetGCPercent(old); got != want {
				t.Errorf("garbage is collected at %d %%, not %d", got, want)
			}
		})
	}
}
