package server_test

import (
	"database/sql"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server"
	"github.com/stokerd/stoker/server/internal/brokertest"
)

// A broker forgets join tokens a day after their end, so that the table does
// not grow for ever.
func TestExpiredJoinTokensAreForgotten(t *testing.T) {
	b, _ := acme(t, brokertest.Options{Configure: func(c *server.Config) {
		c.Enrollment = &server.EnrollmentConfig{Listen: "127.0.0.1:0"}
	}}, time.Hour)
	if _, err := stokerv1.NewAgentServiceClient(b.Admin).InviteAgent(t.Context(), &stokerv1.InviteAgentRequest{Tenant: "acme", Name: "nas"}); err != nil {
		t.Fatal(err)
	}
	b.Stop()
	db, err := sql.Open("sqlite", b.Config.Storage.SQLite)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	count := func() (n int) {
		t.Helper()
		if err := db.QueryRow("SELECT count(*) FROM join_tokens").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := count(); n != 1 {
		t.Fatalf("%d join tokens", n)
	}
	if _, err := db.Exec("UPDATE join_tokens SET expires_at = 1"); err != nil {
		t.Fatal(err)
	}
	b.Restart()
	deadline := time.After(20 * time.Second)
	for count() > 0 {
		select {
		case <-deadline:
			t.Fatal("the expired join token is still there")
		case <-time.After(20 * time.Millisecond):
		}
	}
}
