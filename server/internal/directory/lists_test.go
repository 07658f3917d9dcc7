package directory_test

import (
	"slices"
	"testing"

	"github.com/stokerd/stoker/server/internal/storage"
)

// The lists for operators have everything of their kind, whoever's it is, in
// memory of the caller's own.
func TestListsForOperators(t *testing.T) {
	f := newFake()
	f.commit(everything()...)
	east, elsewhere := west, foreign
	east.ID, east.Name = "l2", "east"
	elsewhere.ID, elsewhere.Name, elsewhere.LocationID = "g5", "elsewhere", "l2"
	f.commit(put(east), put(elsewhere))
	d := open(t, f)
	ids := func(grants []storage.Grant) (ids []string) {
		for _, g := range grants {
			ids = append(ids, g.ID)
		}
		return ids
	}
	if got := d.Locations(); !slices.Equal(got, []storage.Location{east, west}) {
		t.Errorf("Locations = %+v", got)
	}
	if got := ids(d.GrantsAt("l1")); !slices.Equal(got, []string{"g1", "g2", "g3", "g4"}) {
		t.Errorf("GrantsAt(l1) = %q", got)
	}
	if got := ids(d.GrantsOf("t1")); !slices.Equal(got, []string{"g2", "g3", "g1"}) {
		t.Errorf("GrantsOf(t1) = %q", got)
	}
	if got := append(d.GrantsAt("l9"), d.GrantsOf("t9")...); len(got) > 0 {
		t.Errorf("lists of what is not there: %+v", got)
	}
	d.GrantsAt("l1")[0].Actions[0] = "s3:*"
	d.GrantsOf("t1")[2].Actions[0] = "s3:*"
	check(t, "Grant", weekly)(d.Grant("g1"))
}
