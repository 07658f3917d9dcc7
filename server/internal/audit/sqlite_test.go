package audit_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/storage"
	"github.com/stokerd/stoker/server/internal/storage/sqlite"
)

// openStore opens a database file and closes it with the test.
func openStore(t testing.TB, path string) *sqlite.Store {
	t.Helper()
	store, err := sqlite.Open(t.Context(), path, logger(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

func database(t testing.TB) string { return filepath.Join(t.TempDir(), "stoker.db") }

// What comes back from the file is what was hashed, whatever is in it.
func TestSQLiteKeepsRecordsAsTheyAre(t *testing.T) {
	path := database(t)
	store := openStore(t, path)
	trail := open(t, store, audit.Options{})
	var given []storage.AuditRecord
	for _, text := range []string{"", "plain", "\x00\x01\x1b\r\n\t\"\\", "\xff\xfe", "é€\U0001F600\u202e", strings.Repeat("€", 1000), "0", "null", "1e5"} {
		r := storage.AuditRecord{
			Event: string(audit.SessionRefused), Reason: text, Actor: text, Peer: text, Tenant: text, Login: text,
			CredentialID: text, SessionName: text, Expires: time.Now().Add(time.Hour),
			Detail: map[string]string{text: text, "k": text, "<&>\u2028": "<&>\u2028"},
		}
		got, err := trail.Append(t.Context(), r, audit.NoFence)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		given = append(given, got)
	}
	many := storage.AuditRecord{Event: string(audit.AdminUpdated), Detail: map[string]string{}}
	for i := range 500 {
		many.Detail[fmt.Sprint(i)] = strings.Repeat("\x01", 500)
	}
	got, err := trail.Append(t.Context(), many, audit.NoFence)
	if err != nil {
		t.Fatal(err)
	}
	given = append(given, got)
	closeTrail(t, trail)
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}

	store = openStore(t, path)
	intact(t, store)
	stored, err := store.AuditChain(t.Context(), trail.Writer(), 2, 100)
	if err != nil || len(stored) != len(given) {
		t.Fatalf("%d records, %v", len(stored), err)
	}
	for i := range stored {
		if !reflect.DeepEqual(stored[i], given[i]) {
			t.Errorf("stored %+v\ngiven  %+v", stored[i], given[i])
		}
	}
}

// The fence holds against changes that really are committed meanwhile.
func TestSQLiteFence(t *testing.T) {
	store := openStore(t, database(t))
	trail := open(t, store, audit.Options{})
	fence, err := store.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trail.Append(t.Context(), issued("1"), fence); err != nil {
		t.Errorf("Append = %v", err)
	}
	if _, err := store.CreateTenant(t.Context(), storage.Tenant{Meta: storage.Meta{ID: "t"}, Name: "t"}); err != nil {
		t.Fatal(err)
	}
	if _, err := trail.Append(t.Context(), issued("2"), fence); !errors.Is(err, audit.ErrStale) {
		t.Errorf("Append with a stale fence = %v", err)
	}
	if _, err := store.FindIssue(t.Context(), "2"); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("FindIssue = %v", err)
	}
	if r, err := store.FindIssue(t.Context(), "1"); err != nil || r.Sequence != 2 {
		t.Errorf("FindIssue = %+v, %v", r, err)
	}
}

// A revocation and issues race: whatever was recorded under the fence from
// before the revocation was recorded before it.
func TestSQLiteFenceRaces(t *testing.T) {
	store := openStore(t, database(t))
	trail := open(t, store, audit.Options{})
	var group sync.WaitGroup
	for worker := range 4 {
		group.Go(func() {
			for i := range 20 {
				fence, err := store.Head(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				r := issued(fmt.Sprintf("%d-%d", worker, i))
				r.Detail = map[string]string{"fence": fmt.Sprint(fence)}
				if _, err := trail.Append(t.Context(), r, fence); err != nil && !errors.Is(err, audit.ErrStale) {
					t.Errorf("Append: %v", err)
				}
			}
		})
	}
	group.Go(func() {
		for i := range 20 {
			if err := store.EndSession(t.Context(), storage.EndedSession{ID: fmt.Sprint(i), Expires: time.Now()}); err != nil {
				t.Error(err)
			}
		}
	})
	group.Wait()
	stored, err := store.AuditChain(t.Context(), trail.Writer(), 2, 1000)
	if err != nil || len(stored) == 0 {
		t.Fatalf("%d records, %v", len(stored), err)
	}
	last := int64(0)
	for _, r := range stored {
		var fence int64
		if _, err := fmt.Sscan(r.Detail["fence"], &fence); err != nil {
			t.Fatal(err)
		}
		if fence < last {
			t.Errorf("record %d has the fence %d after one of %d", r.Sequence, fence, last)
		}
		last = fence
	}
	intact(t, store)
}

// Two brokers on one store write, trim, verify and restart.
func TestSQLiteReplicas(t *testing.T) {
	store := openStore(t, database(t))
	for range 2 {
		one, two := open(t, store, audit.Options{}), open(t, store, audit.Options{})
		var group sync.WaitGroup
		for _, trail := range []*audit.Trail{one, two} {
			group.Go(func() { fill(t, trail, 0, 100) })
			group.Go(func() {
				for range 3 {
					if _, err := trail.Trim(t.Context(), time.Now().Add(-5*time.Millisecond)); err != nil {
						t.Errorf("Trim: %v", err)
					}
					report, err := trail.Verify(t.Context())
					if err != nil || !report.Intact() {
						t.Errorf("Verify = %+v, %v", report, err)
					}
				}
			})
		}
		group.Wait()
		closeTrail(t, one)
		closeTrail(t, two)
	}
	if _, err := open(t, store, audit.Options{}).Trim(t.Context(), time.Now()); err != nil {
		t.Errorf("Trim: %v", err)
	}
	report := verify(t, store)
	if !report.Intact() || len(report.Chains) != 5 || report.Records() > 5 {
		t.Errorf("%d chains, %d records, intact %v", len(report.Chains), report.Records(), report.Intact())
	}
}

// Whoever can write to the database file, but has no key, is found out.
func TestSQLiteTampering(t *testing.T) {
	for name, c := range map[string]struct {
		do   string
		want audit.FaultKind
		at   int64
	}{
		"nothing":       {`SELECT 1`, "", 0},
		"altered":       {`UPDATE audit_records SET user_login = 'eve' WHERE sequence = 5`, audit.FaultAltered, 5},
		"removed":       {`DELETE FROM audit_records WHERE sequence = 5`, audit.FaultMissing, 5},
		"truncated":     {`DELETE FROM audit_records WHERE sequence > 5`, audit.FaultTruncated, 6},
		"all removed":   {`DELETE FROM audit_records`, audit.FaultTruncated, 1},
		"head removed":  {`DELETE FROM audit_heads`, audit.FaultHeadMissing, 1},
		"head forged":   {`UPDATE audit_heads SET seal = zeroblob(32)`, audit.FaultHeadForged, 11},
		"head shortens": {`UPDATE audit_heads SET sequence = 5`, audit.FaultHeadForged, 5},
		"head extends":  {`UPDATE audit_heads SET sequence = 50`, audit.FaultHeadForged, 50},
		"front removed": {`DELETE FROM audit_records WHERE sequence < 5; UPDATE audit_heads SET first_sequence = 5,
			first_previous_hash = (SELECT rest ->> 'previous_hash' FROM audit_records WHERE sequence = 5)`, audit.FaultHeadForged, 11},
		"reordered": {`UPDATE audit_records SET sequence = -1 WHERE sequence = 5; UPDATE audit_records SET sequence = 5 WHERE sequence = 6;
			UPDATE audit_records SET sequence = 6 WHERE sequence = -1`, audit.FaultAltered, 5},
		"duplicated": {`CREATE TEMP TABLE again AS SELECT * FROM audit_records WHERE sequence = 5; UPDATE again SET sequence = 12;
			INSERT INTO audit_records SELECT * FROM again`, audit.FaultExcess, 12},
		"duplicated in front": {`CREATE TEMP TABLE again AS SELECT * FROM audit_records WHERE sequence = 5; UPDATE again SET sequence = -7;
			INSERT INTO audit_records SELECT * FROM again`, audit.FaultLeftover, -7},
		"another's": {`UPDATE audit_records SET writer = 'eve' WHERE sequence = 11`, audit.FaultTruncated, 11},
	} {
		t.Run(name, func(t *testing.T) {
			path := database(t)
			store := openStore(t, path)
			trail := open(t, store, audit.Options{})
			fill(t, trail, 0, 10)
			closeTrail(t, trail)
			tamper(t, path, c.do)
			report := verify(t, store)
			if c.want == "" {
				if !report.Intact() || report.Records() != 11 {
					t.Errorf("report %+v", report)
				}
				return
			}
			if f := report.Chains[0].Faults; len(f) == 0 || f[0].Kind != c.want || f[0].Sequence != c.at {
				t.Errorf("faults %v, want %s at %d", f, c.want, c.at)
			}
			if name == "another's" && (len(report.Chains) != 2 || report.Chains[1].Faults[0].Kind != audit.FaultHeadMissing) {
				t.Errorf("report %+v", report)
			}
		})
	}
}

// tamper does something to the file beside the broker.
func tamper(t *testing.T, path, statements string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	conn, err := db.Conn(t.Context()) // temporary tables are a connection's
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ExecContext(t.Context(), statements); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
}

// The database file is put back to a copy under a running broker: it begins
// another chain, and the loss shows.
func TestSQLiteRestoredFromBackup(t *testing.T) {
	path := database(t)
	store := openStore(t, path)
	trail := open(t, store, audit.Options{})
	writer := trail.Writer()
	fill(t, trail, 0, 5)
	tamper(t, path, `CREATE TABLE backup_records AS SELECT * FROM audit_records; CREATE TABLE backup_heads AS SELECT * FROM audit_heads`)
	fill(t, trail, 5, 10)
	tamper(t, path, `DELETE FROM audit_records; INSERT INTO audit_records SELECT * FROM backup_records;
		DELETE FROM audit_heads; INSERT INTO audit_heads SELECT * FROM backup_heads; DROP TABLE backup_records; DROP TABLE backup_heads`)
	fill(t, trail, 10, 15)
	if trail.Writer() == writer {
		t.Error("the chain that lost its end was continued")
	}
	report := verify(t, store)
	if f := report.Chains[0].Faults; len(f) != 1 || f[0].Kind != audit.FaultRolledBack || f[0].Sequence != 11 {
		t.Errorf("faults %v", f)
	}
}

// Store calls that fail because the store is closed are an outage like any
// other, to the end.
func TestSQLiteClosed(t *testing.T) {
	store := openStore(t, database(t))
	trail := open(t, store, audit.Options{})
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := trail.Append(t.Context(), issued("1"), audit.NoFence); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("Append = %v", err)
	}
	if err := trail.Healthy(); err == nil {
		t.Error("healthy without storage")
	}
	if err := trail.Close(context.Background()); err != nil {
		t.Errorf("Close = %v", err)
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			trail := open(b, openStore(b, database(b)), audit.Options{})
			work := make(chan struct{}, callers)
			var group sync.WaitGroup
			for range callers {
				group.Go(func() {
					for range work {
						if _, err := trail.Append(b.Context(), issued("c"), audit.NoFence); err != nil {
							b.Error(err)
						}
					}
				})
			}
			begun := time.Now()
			for b.Loop() {
				work <- struct{}{}
			}
			close(work)
			group.Wait()
			stats := trail.Stats()
			b.ReportMetric(float64(stats.Records)/time.Since(begun).Seconds(), "records/s")
			b.ReportMetric(float64(stats.Records)/float64(stats.Commits), "records/commit")
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	store := openStore(b, database(b))
	trail := open(b, store, audit.Options{})
	var group sync.WaitGroup
	for range 64 {
		group.Go(func() {
			for range 300 {
				if _, err := trail.Append(b.Context(), issued("c"), audit.NoFence); err != nil {
					b.Error(err)
				}
			}
		})
	}
	group.Wait()
	for b.Loop() {
		if report, err := trail.Verify(b.Context()); err != nil || !report.Intact() {
			b.Fatal(report, err)
		}
	}
	b.ReportMetric(64*300*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

func BenchmarkHash(b *testing.B) {
	b.ReportAllocs()
	r := issued("c")
	for b.Loop() {
		audit.Hash(r)
	}
}
