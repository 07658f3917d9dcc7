package postgres_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/stokerd/stoker/internal/partner/postgres"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func connect(t *testing.T, dsn string) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err == nil {
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
	}
	return conn, err
}

func mustConnect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := connect(t, dsn)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func exec(t *testing.T, conn *pgx.Conn, limit time.Duration, statement string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	_, err := conn.Exec(ctx, statement)
	return err
}

func mustExec(t *testing.T, conn *pgx.Conn, statement string) {
	t.Helper()
	if err := exec(t, conn, 30*time.Second, statement); err != nil {
		t.Fatal(err)
	}
}

func TestServer(t *testing.T) {
	server := postgres.Start(t)
	a, b := server.Database(t), server.Database(t)
	mustExec(t, mustConnect(t, a), "CREATE TABLE here (n int)")
	if err := exec(t, mustConnect(t, b), time.Second, "SELECT * FROM here"); err == nil {
		t.Error("two tests share a database")
	}
	for name, end := range map[string]func(testing.TB){"stop": server.Stop, "kill": server.Kill} {
		t.Run(name, func(t *testing.T) {
			end(t)
			if _, err := connect(t, a); err == nil {
				t.Error("the server still answers")
			}
			server.Restart(t)
			mustExec(t, mustConnect(t, a), "SELECT * FROM here")
		})
	}

	t.Run("link", func(t *testing.T) {
		link := server.Link(t)
		through := link.DSN(t, a)
		mustExec(t, mustConnect(t, through), "SELECT 1")

		conn := mustConnect(t, through)
		link.Cut()
		if exec(t, conn, time.Second, "SELECT 1") == nil {
			t.Error("a cut connection works")
		}
		if _, err := connect(t, through); err == nil {
			t.Error("a cut link connects")
		}
		link.Restore()
		conn = mustConnect(t, through)
		link.Hang()
		if exec(t, conn, 100*time.Millisecond, "SELECT 1") == nil {
			t.Error("a hung connection works")
		}
		link.Restore()
		link.Slow(30 * time.Millisecond)
		conn = mustConnect(t, through)
		begin := time.Now()
		mustExec(t, conn, "SELECT 1")
		if took := time.Since(begin); took < 60*time.Millisecond {
			t.Errorf("a slow round trip took %v", took)
		}
	})
}
