package sqlite

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stokerd/stoker/internal/partner/fulldisk"
	"github.com/stokerd/stoker/server/internal/storage"
)

// A full disk stops writing, loses nothing that was acknowledged, leaves
// reading as it is, shows in Ping, and is over when there is room again.
func TestDiskFull(t *testing.T) {
	dir := fulldisk.New(t, 2<<20).Dir
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, bytes.Repeat([]byte{1}, 512<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, filepath.Join(dir, "stoker.db"))
	defer mustClose(t, s)
	ctx := t.Context()
	if err := s.Ping(ctx); err != nil {
		t.Fatal(err)
	}
	next := int64(1)
	appendNext := func() error {
		batch := issues("w", next, 10)
		err := s.AppendAudit(ctx, func(int64) (storage.AuditBatch, error) { return batch, nil })
		if err == nil {
			next += 10
		}
		return err
	}
	var err error
	for err == nil {
		if err = appendNext(); next > 10_000 {
			t.Fatal("the disk does not get full")
		}
	}
	if !errors.Is(err, storage.ErrUnavailable) || !strings.Contains(err.Error(), "the disk is full") {
		t.Errorf("append: %v", err)
	}
	// What is left of the last page may still take a ping or two.
	for range 100 {
		if err = s.Ping(ctx); err != nil {
			break
		}
	}
	if !errors.Is(err, storage.ErrUnavailable) || !strings.Contains(err.Error(), "the disk is full") {
		t.Errorf("ping: %v", err)
	}
	if _, err := s.CreateTenant(ctx, storage.Tenant{Meta: storage.Meta{ID: "id"}, Name: "n"}); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("create: %v", err)
	}
	checkStored(t, s, next-1)

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := s.Ping(ctx); err != nil {
		t.Errorf("ping with room again: %v", err)
	}
	if err := appendNext(); err != nil {
		t.Errorf("append with room again: %v", err)
	}
	checkStored(t, s, next-1)
}

// checkStored checks that the trail holds what was acknowledged, and no more.
func checkStored(t *testing.T, s *Store, last int64) {
	t.Helper()
	records, err := s.AuditChain(t.Context(), "w", 1, 1_000_000)
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(records)) != last {
		t.Errorf("%d records, %d were acknowledged", len(records), last)
	}
	if head, err := s.Head(t.Context()); err != nil || head != 0 {
		t.Errorf("head is %d (%v)", head, err)
	}
}
