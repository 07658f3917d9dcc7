package site

import (
	"context"
	"errors"
	"os"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
)

// reviewPage is how many records are read at once.
const reviewPage = 1000

// Review reads the whole audit trail, while no broker writes it: it verifies
// the chains, and then shows each record.
func (s *Site) Review(ctx context.Context, show func(storage.AuditRecord)) (_ audit.Report, err error) {
	store, err := s.open(ctx)
	if err != nil {
		return audit.Report{}, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	text, err := os.ReadFile(s.encrypted)
	if err != nil {
		return audit.Report{}, err
	}
	sealer, err := pki.NewSealer(secret.New(string(text)))
	if err != nil {
		return audit.Report{}, err
	}
	key, _, err := (&office{store: store, sealer: sealer}).key(ctx, "audit")
	if err != nil {
		return audit.Report{}, err
	}
	report, err := audit.Verify(ctx, store, key)
	if err != nil {
		return report, err
	}
	heads, err := store.AuditHeads(ctx)
	if err != nil {
		return report, err
	}
	for _, head := range heads {
		for next := head.First; next <= head.Sequence; {
			page, err := store.AuditChain(ctx, head.Writer, next, reviewPage)
			if err != nil || len(page) == 0 {
				return report, errors.Join(err, errEnds(len(page) == 0))
			}
			for _, r := range page {
				show(r)
			}
			next = page[len(page)-1].Sequence + 1
		}
	}
	return report, nil
}

// errEnds says that a chain ends before its head.
func errEnds(early bool) error {
	if early {
		return errors.New("a chain of the audit trail ends before its head says so")
	}
	return nil
}
