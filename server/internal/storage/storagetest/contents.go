package storagetest

import (
	"testing"

	"github.com/stokerd/stoker/server/internal/storage"
)

// Contents is all that a store holds, as its interface shows it.
type Contents struct {
	Snapshot   storage.Snapshot
	Users      []storage.User // with their hashes
	Changes    []storage.Change
	Keys       []storage.SealedKey
	JoinTokens []storage.JoinToken
	Certified  []storage.Certificate
	Revoked    []storage.Revocation
	Records    []storage.AuditRecord
	Heads      []storage.AuditHead
}

// Fill stores something of every kind in an empty store.
func Fill(t *testing.T, s storage.Store) {
	t.Helper()
	ctx := t.Context()
	tenant, location := addTenant(t, s, "t"), addLocation(t, s, "l")
	user, agent := addUser(t, s, tenant.ID, "u"), addAgent(t, s, tenant.ID, "a")
	addUser(t, s, addTenant(t, s, "other").ID, "u")
	grant := addGrant(t, s, tenant.ID, user.ID, location.ID, "g")
	grant.Actions = []string{"s3:GetObject", "s3:PutObject"}
	must[storage.Grant](t)(s.UpdateGrant(ctx, grant))
	addGrant(t, s, tenant.ID, "", location.ID, "for all")
	noError(t, s.DeleteAgent(ctx, addAgent(t, s, tenant.ID, "gone").ID, 0))

	issued := certificate(t, "cd")
	issued.AgentID = agent.ID
	must[storage.Certificate](t)(s.RecordCertificate(ctx, issued))
	must[storage.Certificate](t)(s.RevokeCertificate(ctx, certificate(t, "ab")))
	noError(t, s.EndSession(ctx, storage.EndedSession{ID: "jti", Expires: moment(1)}))
	first := must[storage.SealedKey](t)(s.AddKey(ctx, sealedKey(t, "token"), ""))
	must[storage.SealedKey](t)(s.AddKey(ctx, sealedKey(t, "token"), first.ID))
	noError(t, s.CreateJoinToken(ctx, token(tenant.ID, "unused", 10)))
	noError(t, s.CreateJoinToken(ctx, token(tenant.ID, "used", 10)))
	noError(t, s.UseJoinToken(ctx, "used", moment(1)))
	must[storage.Revocation](t)(s.CreateRevocation(ctx, revocation(t)))
	over := revocation(t)
	over.State = storage.RevocationExpired
	must[storage.Revocation](t)(s.CreateRevocation(ctx, over))

	batch := chain("w", 1, 200)
	batch.Records[0].Detail = map[string]string{"old": "1", "new": "2"}
	batch.Records[0].CredentialID, batch.Records[0].Expires = "c", moment(60)
	appendBatch(t, s, batch)
	appendBatch(t, s, chain("v", 1, 3))
	head := batch.Head
	head.First, head.FirstPrevHash = 11, "h10"
	noError(t, s.TrimAudit(ctx, head))
}

// Read reads what Fill stored.
func Read(t *testing.T, s storage.Store) Contents {
	t.Helper()
	ctx := t.Context()
	c := Contents{
		Snapshot: must[storage.Snapshot](t)(s.Load(ctx)),
		Changes:  must[[]storage.Change](t)(s.Changes(ctx, 0, 1000)),
		Keys:     must[[]storage.SealedKey](t)(s.ListKeys(ctx, "token")),
		Revoked:  must[[]storage.Revocation](t)(s.ListRevocations(ctx, true, storage.Page{Limit: 1000})),
		Records:  listAll(t, s),
		Heads:    must[[]storage.AuditHead](t)(s.AuditHeads(ctx)),
	}
	for _, id := range []string{"unused", "used"} {
		c.JoinTokens = append(c.JoinTokens, must[storage.JoinToken](t)(s.GetJoinToken(ctx, id)))
	}
	for _, tenant := range must[[]storage.Tenant](t)(s.ListTenants(ctx, storage.Page{Limit: 1000})) {
		c.Users = append(c.Users, must[[]storage.User](t)(s.ListUsers(ctx, tenant.ID, storage.Page{Limit: 1000}))...)
		agents := must[[]storage.Agent](t)(s.ListAgents(ctx, tenant.ID, storage.Page{Limit: 1000}))
		for _, agent := range agents {
			c.Certified = append(c.Certified, must[[]storage.Certificate](t)(s.CertificatesOf(ctx, agent.ID))...)
		}
	}
	return c
}
