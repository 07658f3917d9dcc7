package e2e_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stokerd/stoker/internal/partner/postgres"
	"github.com/stokerd/stoker/internal/polling"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

// A provider that began with SQLite moves to PostgreSQL: the agents' sessions
// and credentials go on, and the audit trail still verifies.
func TestMoveFromSQLiteToPostgreSQL(t *testing.T) {
	database := postgres.Start(t).Database(t)
	d := newDaemon(t, "")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	password, certs := d.fleet(ctx, 1, time.Hour)
	agent := d.hold(t, certs[0], password)
	must(t, agent.Wait(ctx, "nightly"))
	before, err := agent.Credential("nightly")
	must(t, err)
	d.kill()

	sqlite := d.dir + "/stoker.db"
	out := run(t, d.stokerd(ctx, "storage", "copy", "--from", "sqlite:"+sqlite, "--to", database))
	if !strings.Contains(out, "copied") {
		t.Errorf("copy said:\n%s", out)
	}
	if out := fails(t, d.stokerd(ctx, "storage", "copy", "--from", "sqlite:"+sqlite, "--to", database)); strings.Contains(out, database) {
		t.Errorf("a second copy repeats the connection string:\n%s", out)
	}
	fails(t, d.stokerd(ctx, "storage", "copy", "--from", "sqlite:"+d.dir+"/none.db", "--to", database))

	text, err := os.ReadFile(d.config)
	must(t, err)
	must(t, os.WriteFile(d.config, []byte(strings.Replace(string(text), "sqlite: "+sqlite, "postgres: \""+database+"\"", 1)), 0o600))
	d.start()
	polling.Until(ctx, t, "the agent to be back", func() bool { return agent.connected.Load() >= 2 })
	if c, err := agent.Credential("nightly"); err != nil || c.ID != before.ID {
		t.Errorf("the agent has %v, %v", c.ID, err)
	}
	if n := d.sts.Calls()["GetFederationToken"]; n != 1 {
		t.Errorf("the move cost %d STS calls", n-1)
	}
	verified, err := stokerv1.NewAuditServiceClient(d.admin).Verify(ctx, &stokerv1.VerifyRequest{})
	must(t, err)
	if !verified.GetIntact() {
		t.Errorf("the trail does not verify: %v", verified)
	}
}
