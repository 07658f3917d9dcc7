package directory

import (
	"cmp"
	"slices"

	"github.com/stokerd/stoker/server/internal/storage"
)

// Locations lists all locations by name.
func (d *Directory) Locations() []storage.Location {
	d.mu.RLock()
	defer d.mu.RUnlock()
	list := make([]storage.Location, 0, len(d.picture.locations.byID))
	for _, l := range d.picture.locations.byID {
		list = append(list, *l)
	}
	slices.SortFunc(list, func(a, b storage.Location) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// GrantsAt lists the grants of all tenants at a location, oldest first (by
// id), disabled ones too. It looks at every grant there is: it is for changes
// that operators make, not for checks of callers.
func (d *Directory) GrantsAt(locationID string) []storage.Grant {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var list []storage.Grant
	for _, g := range d.picture.grants.byID {
		if g.LocationID == locationID {
			list = append(list, ownGrant(*g))
		}
	}
	slices.SortFunc(list, func(a, b storage.Grant) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// GrantsOf lists all grants of a tenant by name, whichever user has them,
// disabled ones too.
func (d *Directory) GrantsOf(tenantID string) []storage.Grant {
	d.mu.RLock()
	defer d.mu.RUnlock()
	list := make([]storage.Grant, 0, len(d.picture.grantsOf[tenantID]))
	for _, g := range d.picture.grantsOf[tenantID] {
		list = append(list, ownGrant(*g))
	}
	return list
}
