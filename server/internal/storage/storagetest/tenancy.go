package storagetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stokerd/stoker/server/internal/storage"
)

func testNamesAreUniqueInTheTenantOnly(t *testing.T, s storage.Store) {
	location := addLocation(t, s, "l")
	for _, name := range []string{"a", "b"} {
		tenant := addTenant(t, s, name)
		addUser(t, s, tenant.ID, "same")
		addAgent(t, s, tenant.ID, "same")
		addGrant(t, s, tenant.ID, "", location.ID, "same")
	}
}

func testListsHoldOneTenant(t *testing.T, s storage.Store) {
	location := addLocation(t, s, "l")
	a, b := addTenant(t, s, "a"), addTenant(t, s, "b")
	for i := range 3 {
		for _, tenant := range []storage.Tenant{a, b} {
			name := fmt.Sprintf("%s%d", tenant.Name, i)
			addUser(t, s, tenant.ID, name)
			addAgent(t, s, tenant.ID, name)
			addGrant(t, s, tenant.ID, "", location.ID, name)
		}
	}
	ctx, p := t.Context(), storage.Page{Limit: 10}
	for tenantID, want := range map[string][]string{
		a.ID: {"a0", "a1", "a2"}, b.ID: {"b0", "b1", "b2"}, newID(t): nil, "": nil,
	} {
		var users, agents, grants []string
		for _, v := range must[[]storage.User](t)(s.ListUsers(ctx, tenantID, p)) {
			users = append(users, v.Login)
		}
		for _, v := range must[[]storage.Agent](t)(s.ListAgents(ctx, tenantID, p)) {
			agents = append(agents, v.Name)
		}
		for _, v := range must[[]storage.Grant](t)(s.ListGrants(ctx, tenantID, p)) {
			grants = append(grants, v.Name)
		}
		same(t, "users", users, want)
		same(t, "agents", agents, want)
		same(t, "grants", grants, want)
	}
}

func testUnknownParents(t *testing.T, s storage.Store) {
	ctx := t.Context()
	tenant, other := addTenant(t, s, "t"), addTenant(t, s, "o")
	stranger := addUser(t, s, other.ID, "stranger")
	location := addLocation(t, s, "l")
	grant := addGrant(t, s, tenant.ID, "", location.ID, "g")
	told(t, s, func() {
		_, err := s.CreateUser(ctx, storage.User{Meta: newMeta(t), TenantID: newID(t), Login: "u"})
		wantError(t, err, storage.ErrNotFound)
		_, err = s.CreateAgent(ctx, storage.Agent{Meta: newMeta(t), TenantID: newID(t), Name: "a"})
		wantError(t, err, storage.ErrNotFound)
		for _, c := range []struct{ tenant, user, location string }{
			{newID(t), "", location.ID}, {tenant.ID, newID(t), location.ID},
			{tenant.ID, stranger.ID, location.ID}, {tenant.ID, "", newID(t)},
		} {
			_, err = s.CreateGrant(ctx, storage.Grant{
				Meta: newMeta(t), TenantID: c.tenant, UserID: c.user, LocationID: c.location, Name: "new"})
			wantError(t, err, storage.ErrNotFound)
		}
		moved := grant
		moved.UserID = stranger.ID
		_, err = s.UpdateGrant(ctx, moved)
		wantError(t, err, storage.ErrNotFound)
		moved = grant
		moved.LocationID = newID(t)
		_, err = s.UpdateGrant(ctx, moved)
		wantError(t, err, storage.ErrNotFound)
	})
}

func testTheTenantCannotChange(t *testing.T, s storage.Store) {
	ctx := t.Context()
	tenant, other := addTenant(t, s, "t"), addTenant(t, s, "o")
	location := addLocation(t, s, "l")
	user, agent := addUser(t, s, tenant.ID, "u"), addAgent(t, s, tenant.ID, "a")
	grant := addGrant(t, s, tenant.ID, "", location.ID, "g")
	user.TenantID, agent.TenantID, grant.TenantID = other.ID, other.ID, other.ID
	told(t, s, func() {
		_, err := s.UpdateUser(ctx, user)
		wantError(t, err, storage.ErrInvalid)
		_, err = s.UpdateAgent(ctx, agent)
		wantError(t, err, storage.ErrInvalid)
		_, err = s.UpdateGrant(ctx, grant)
		wantError(t, err, storage.ErrInvalid)
	})
}

func testDeleteTenantTakesWhatItHas(t *testing.T, s storage.Store) {
	ctx := t.Context()
	location := addLocation(t, s, "l")
	tenant, other := addTenant(t, s, "t"), addTenant(t, s, "o")
	otherUser := addUser(t, s, other.ID, "u")
	otherGrant := addGrant(t, s, other.ID, otherUser.ID, location.ID, "g")
	user, agent := addUser(t, s, tenant.ID, "u"), addAgent(t, s, tenant.ID, "a")
	all, own := addGrant(t, s, tenant.ID, "", location.ID, "all"), addGrant(t, s, tenant.ID, user.ID, location.ID, "own")
	token := storage.JoinToken{ID: "token", Hash: []byte("h"), TenantID: tenant.ID, AgentName: "new",
		CreatedAt: moment(0), Expires: moment(10)}
	noError(t, s.CreateJoinToken(ctx, token))

	before := must[int64](t)(s.Head(ctx))
	noError(t, s.DeleteTenant(ctx, tenant.ID, 1))
	changes := must[[]storage.Change](t)(s.Changes(ctx, before, 100))
	want := map[string]storage.Kind{
		tenant.ID: storage.KindTenant, user.ID: storage.KindUser, agent.ID: storage.KindAgent,
		all.ID: storage.KindGrant, own.ID: storage.KindGrant,
	}
	got := map[string]storage.Kind{}
	for _, c := range changes {
		got[c.ID] = c.Kind
	}
	same(t, "changes", got, want)
	if len(changes) != len(want) {
		t.Errorf("%d changes, want %d", len(changes), len(want))
	}
	_, err := s.GetTenant(ctx, tenant.ID)
	wantError(t, err, storage.ErrNotFound)
	_, err = s.GetUser(ctx, user.ID)
	wantError(t, err, storage.ErrNotFound)
	_, err = s.GetAgent(ctx, agent.ID)
	wantError(t, err, storage.ErrNotFound)
	for _, id := range []string{all.ID, own.ID} {
		_, err = s.GetGrant(ctx, id)
		wantError(t, err, storage.ErrNotFound)
	}
	_, err = s.GetJoinToken(ctx, token.ID)
	wantError(t, err, storage.ErrNotFound)
	must[storage.Grant](t)(s.GetGrant(ctx, otherGrant.ID))
	must[storage.User](t)(s.GetUser(ctx, otherUser.ID))
}

func testDeleteUserTakesItsOwnGrants(t *testing.T, s storage.Store) {
	ctx := t.Context()
	location, tenant := addLocation(t, s, "l"), addTenant(t, s, "t")
	user, friend := addUser(t, s, tenant.ID, "user"), addUser(t, s, tenant.ID, "friend")
	all, own := addGrant(t, s, tenant.ID, "", location.ID, "all"), addGrant(t, s, tenant.ID, user.ID, location.ID, "own")
	friends := addGrant(t, s, tenant.ID, friend.ID, location.ID, "friends")
	told(t, s, func() { noError(t, s.DeleteUser(ctx, user.ID, 0)) },
		storage.Change{Kind: storage.KindGrant, ID: own.ID}, storage.Change{Kind: storage.KindUser, ID: user.ID})
	_, err := s.GetGrant(ctx, own.ID)
	wantError(t, err, storage.ErrNotFound)
	must[storage.Grant](t)(s.GetGrant(ctx, all.ID))
	must[storage.Grant](t)(s.GetGrant(ctx, friends.ID))
}

func testDeleteLocationInUse(t *testing.T, s storage.Store) {
	ctx := t.Context()
	location, tenant := addLocation(t, s, "l"), addTenant(t, s, "t")
	grant := addGrant(t, s, tenant.ID, "", location.ID, "g")
	told(t, s, func() {
		wantError(t, s.DeleteLocation(ctx, location.ID, 1), storage.ErrInUse)
		wantError(t, s.DeleteLocation(ctx, location.ID, 0), storage.ErrInUse)
	})
	noError(t, s.DeleteGrant(ctx, grant.ID, 0))
	noError(t, s.DeleteLocation(ctx, location.ID, 1))
}

func testGrantActionsAndUserCanChange(t *testing.T, s storage.Store) {
	ctx := t.Context()
	location, tenant := addLocation(t, s, "l"), addTenant(t, s, "t")
	user := addUser(t, s, tenant.ID, "u")
	grant := addGrant(t, s, tenant.ID, user.ID, location.ID, "g")
	grant.Actions = []string{}
	grant.UserID = ""
	grant = must[storage.Grant](t)(s.UpdateGrant(ctx, grant))
	same(t, "grant", must[storage.Grant](t)(s.GetGrant(ctx, grant.ID)), grant)
	if grant.Actions != nil {
		t.Errorf("no actions are %#v, want nil", grant.Actions)
	}
	// The grant is everybody's now: it does not go with the user.
	noError(t, s.DeleteUser(ctx, user.ID, 0))
	must[storage.Grant](t)(s.GetGrant(ctx, grant.ID))
}

// hostile are texts that a careless backend damages, takes for syntax or
// confuses with one another.
var hostile = []string{
	`'; DROP TABLE tenants; --`, `"quoted"`, "`", `\`, `\'`, `%`, `_`, "$1", "?", ":name", "{}", "null", "NULL",
	" ", "  ", " a", "a ", "\t", "\n", "\r\n", "\u0001", "\u007f", "\u00a0", "\ufeff", "\uffff", "\U0001F511",
	"e\u0301", "\u00e9", "A", "a", "I", "\u0131", "i", "\u0130", "0", "00", "1e3", "0x10", "true",
	strings.Repeat("n", storage.MaxKey),
}

func testHostileTexts(t *testing.T, s storage.Store) {
	ctx := t.Context()
	for _, text := range hostile {
		created, err := s.CreateTenant(ctx, storage.Tenant{Meta: storage.Meta{ID: text}, Name: text, DisplayName: text})
		if err != nil {
			t.Errorf("create %.40q: %v", text, err)
			continue
		}
		same(t, fmt.Sprintf("%.40q", text), must[storage.Tenant](t)(s.GetTenant(ctx, text)), created)
	}
	want := slices.Clone(hostile)
	slices.Sort(want)
	var names []string
	for _, v := range must[[]storage.Tenant](t)(s.ListTenants(ctx, storage.Page{Limit: 1000})) {
		names = append(names, v.Name)
	}
	same(t, "names", names, want)
	for i, text := range want[:len(want)-1] {
		page := must[[]storage.Tenant](t)(s.ListTenants(ctx, storage.Page{After: text, Limit: 1}))
		if len(page) != 1 || page[0].Name != want[i+1] {
			t.Errorf("after %.40q comes %v, want %.40q", text, page, want[i+1])
		}
	}
}

// unstorable are texts that are refused wherever they are passed.
var unstorable = map[string]string{
	"NUL":                 "a\x00b",
	"a single NUL":        "\x00",
	"a lone byte":         "a\xff",
	"a cut rune":          "\xe2\x82",
	"a surrogate":         "\xed\xa0\x80",
	"an overlong byte":    "\xc0\x80",
	"a megabyte":          strings.Repeat("m", 1<<20),
	"one byte over":       strings.Repeat("m", storage.MaxText+1),
	"one byte over, wide": strings.Repeat("m", storage.MaxText) + "é",
}

func testTextsThatCannotBeStored(t *testing.T, s storage.Store) {
	ctx := t.Context()
	tenant, location := addTenant(t, s, "t"), addLocation(t, s, "l")
	grant := addGrant(t, s, tenant.ID, "", location.ID, "g")
	for name, text := range unstorable {
		t.Run(name, func(t *testing.T) {
			told(t, s, func() {
				_, err := s.CreateTenant(ctx, storage.Tenant{Meta: newMeta(t), Name: text})
				wantError(t, err, storage.ErrInvalid)
				_, err = s.CreateTenant(ctx, storage.Tenant{Meta: storage.Meta{ID: text}, Name: "n"})
				wantError(t, err, storage.ErrInvalid)
				_, err = s.CreateTenant(ctx, storage.Tenant{Meta: newMeta(t), Name: "n", DisplayName: text})
				wantError(t, err, storage.ErrInvalid)
				if err != nil && len(err.Error()) > 300 {
					t.Errorf("the error shows the text: %.300s", err)
				}
				changed := grant
				changed.Actions = []string{"s3:GetObject", text}
				_, err = s.UpdateGrant(ctx, changed)
				wantError(t, err, storage.ErrInvalid)
			})
		})
	}
	_, err := s.CreateTenant(ctx, storage.Tenant{Meta: newMeta(t), Name: strings.Repeat("n", storage.MaxKey+1)})
	wantError(t, err, storage.ErrInvalid)
	longest := strings.Repeat("d", storage.MaxText)
	v := must[storage.Tenant](t)(s.CreateTenant(ctx, storage.Tenant{Meta: newMeta(t), Name: "longest", DisplayName: longest}))
	same(t, "longest", must[storage.Tenant](t)(s.GetTenant(ctx, v.ID)), v)
}

// What cannot be stored is not found either, and looking for it must not look
// like a broken backend.
func testTextsThatCannotBeStoredAreNowhere(t *testing.T, s storage.Store) {
	ctx := t.Context()
	for name, text := range unstorable {
		for call, err := range map[string]error{
			"get":          result(s.GetTenant(ctx, text)),
			"delete":       s.DeleteTenant(ctx, text, 0),
			"revocation":   result(s.GetRevocation(ctx, text)),
			"session":      result(s.GetEndedSession(ctx, text)),
			"join token":   s.UseJoinToken(ctx, text, moment(0)),
			"issue":        result(s.FindIssue(ctx, text)),
			"delete key":   s.DeleteKey(ctx, text),
			"revoke grant": s.DeleteGrant(ctx, text, 1),
		} {
			if !isOneOf(err, storage.ErrNotFound, storage.ErrInvalid) {
				t.Errorf("%s, %s: %v", call, name, err)
			}
		}
	}
	for call, err := range map[string]error{
		"list":  result(s.ListTenants(ctx, storage.Page{After: "\x00", Limit: 1})),
		"users": result(s.ListUsers(ctx, "\xff", storage.Page{Limit: 1})),
		"audit": result(s.ListAudit(ctx, storage.AuditFilter{Login: "\x00"}, nil, 1)),
	} {
		if !isOneOf(err, storage.ErrInvalid) {
			t.Errorf("%s: %v", call, err)
		}
	}
}
