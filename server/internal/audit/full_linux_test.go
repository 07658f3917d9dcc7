package audit_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stokerd/stoker/internal/partner/fulldisk"
	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// The disk under the trail fills up: from then on nothing is acknowledged, and
// nothing that was is lost. With room again the trail recovers unasked.
func TestDiskFull(t *testing.T) {
	dir := fulldisk.New(t, 2<<20).Dir
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, bytes.Repeat([]byte{1}, 768<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	store := openStore(t, filepath.Join(dir, "stoker.db"))
	trail := open(t, store, audit.Options{})
	acknowledged := 0
	refused := func() error {
		for range 10_000 {
			if _, err := trail.Append(t.Context(), issued(fmt.Sprint(acknowledged)), audit.NoFence); err != nil {
				return err
			}
			acknowledged++
		}
		return nil
	}
	if err := refused(); !reason.Is(err, reason.AuditUnavailable) || !errors.Is(err, storage.ErrUnavailable) {
		t.Fatalf("after %d records: %v", acknowledged, err)
	}
	if err := trail.Healthy(); !reason.Is(err, reason.AuditUnavailable) {
		t.Errorf("Healthy = %v", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(20 * time.Second)
	for trail.Healthy() != nil { // the clock is the disk's: there is no faking it
		select {
		case <-deadline:
			t.Fatal("the trail does not recover")
		case <-time.After(20 * time.Millisecond):
		}
	}
	add(t, trail, "after")
	intact(t, store)
	stored := map[string]bool{}
	resumed := 0
	for _, r := range everyRecord(t, store) {
		stored[r.CredentialID] = true
		if r.Event == string(audit.AuditResumed) {
			resumed++
		}
	}
	for i := range acknowledged {
		if !stored[fmt.Sprint(i)] {
			t.Errorf("record %d was acknowledged and is lost", i)
		}
	}
	if !stored["after"] || resumed != 1 {
		t.Errorf("after the outage: %v, %d records of it", stored["after"], resumed)
	}
}
