package postgres

import (
	"log/slog"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	partner "github.com/stokerd/stoker/internal/partner/postgres"
	"github.com/stokerd/stoker/server/internal/storage"
	"github.com/stokerd/stoker/server/internal/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func logger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// mustOpen opens a store that the caller closes.
func mustOpen(t *testing.T, dsn string, keepChanges int64) *Store {
	t.Helper()
	s, err := open(t.Context(), dsn, logger(t), keepChanges)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustClose(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// run runs a statement on the database.
func run(t *testing.T, dsn, statement string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	if _, err := conn.Exec(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// empty takes everything out of the database that the migrations did not put
// there. Making another database for each case takes many times as long.
const empty = `DO $$ DECLARE t text; BEGIN
	FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename NOT IN ('goose_db_version', 'feed', 'probe')
	LOOP EXECUTE format('ALTER TABLE %I DISABLE TRIGGER ALL', t); EXECUTE format('DELETE FROM %I', t);
		EXECUTE format('ALTER TABLE %I ENABLE TRIGGER ALL', t); END LOOP;
	UPDATE feed SET head = 0;
END $$`

// TestPostgreSQL runs everything on one server: starting one takes long. A
// kill of the server is survived without fsync, which is for power cuts.
func TestPostgreSQL(t *testing.T) {
	server := partner.Start(t, "fsync=off")
	for _, test := range []struct {
		name string
		run  func(*testing.T, *partner.Server)
	}{
		{"Conformance", testConformance},
		{"ReplicasStartTogether", testReplicasStartTogether},
		{"NoPasswordIsShown", testNoPasswordIsShown},
		{"Settings", testSettings},
		{"SchemasAreApart", testSchemasAreApart},
		{"Encoding", testEncoding},
		{"ReadOnly", testReadOnly},
		{"OpenHonorsItsContext", testOpenHonorsItsContext},
		{"NewerTables", testNewerTables},
		{"MigratedUnderLoad", testMigratedUnderLoad},
		{"SlowNetwork", testSlowNetwork},
		{"WatchAfterALostConnection", testWatchAfterALostConnection},
		{"HungNetwork", testHungNetwork},
		{"FrozenReplicaLosesItsHold", testFrozenReplicaLosesItsHold},
		{"ServerKilledUnderLoad", testServerKilledUnderLoad},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, server) })
	}
}

func testConformance(t *testing.T, server *partner.Server) {
	dsn := server.Database(t)
	mustClose(t, mustOpen(t, dsn, 0))
	storagetest.Run(t, storagetest.Harness{Replicas: true, Fresh: func(t *testing.T) storagetest.Opener {
		run(t, dsn, empty)
		return func(t *testing.T, o storagetest.Options) storage.Store {
			t.Helper()
			return mustOpen(t, dsn, o.KeepChanges)
		}
	}})
}
