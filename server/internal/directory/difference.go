package directory

import (
	"cmp"
	"maps"
	"reflect"
	"slices"

	"github.com/stokerd/stoker/server/internal/storage"
)

// difference lists a change for each entity that the two pictures do not have
// alike: what came, went or changed while the feed could not tell. All carry
// the sequence of the newer picture. They are ordered by kind and id.
//
// Keys are not in a picture, so it cannot tell whether they changed: one
// change of storage.KindSealedKey without an id says that they may have.
func difference(older, newer *picture) []storage.Change {
	d := differ{sequence: newer.sequence}
	unlike(&d, storage.KindTenant, older.tenants.byID, newer.tenants.byID)
	unlike(&d, storage.KindUser, older.users.byID, newer.users.byID)
	unlike(&d, storage.KindAgent, older.agents.byID, newer.agents.byID)
	unlike(&d, storage.KindLocation, older.locations.byID, newer.locations.byID)
	unlike(&d, storage.KindGrant, older.grants.byID, newer.grants.byID)
	unlike(&d, storage.KindCertificate, older.certificates, newer.certificates)
	unlike(&d, storage.KindSession, older.sessions, newer.sessions)
	unlike(&d, storage.KindRevocation, older.revocations, newer.revocations)
	return append(d.changes, storage.Change{Sequence: newer.sequence, Kind: storage.KindSealedKey})
}

type differ struct {
	sequence int64
	changes  []storage.Change
}

func unlike[T any](d *differ, kind storage.Kind, older, newer map[string]*T) {
	var ids []string
	for id, before := range older {
		// The contents are compared and not the revisions: a storage that was
		// restored may have reached the same revision by another way.
		if now, ok := newer[id]; !ok || !reflect.DeepEqual(before, now) {
			ids = append(ids, id)
		}
	}
	for id := range maps.Keys(newer) {
		if _, ok := older[id]; !ok {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, cmp.Compare[string])
	for _, id := range ids {
		d.changes = append(d.changes, storage.Change{Sequence: d.sequence, Kind: kind, ID: id})
	}
}
