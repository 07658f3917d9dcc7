package server

import (
	"runtime"
	"testing"
)

// Garbage is not collected before the ballast's share of it is there.
func TestBallastPutsOffCollections(t *testing.T) {
	t.Setenv("GOGC", "")
	takeBallast()
	if len(ballast) != ballastSize {
		t.Fatalf("the ballast has %d bytes", len(ballast))
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if least := uint64(ballastSize * (100 + garbagePercent) / 100); m.NextGC < least {
		t.Errorf("the next collection comes at %d bytes, want %d at least", m.NextGC, least)
	}
}
