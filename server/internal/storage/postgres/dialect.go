package postgres

import (
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/stokerd/stoker/server/internal/storage/internal/sqlstore"
)

// feedChannel carries the news that the feed moved.
const feedChannel = "stoker_feed"

// The feed is locked by an advisory lock and not by its row: requests for such
// a lock are granted in order of arrival, so that a write gets its turn however
// many appends hold the feed still, one after the other without a pause. Locks
// on rows let sharers overtake, and write to the row. The lock is named by the
// table, for brokers with different schemas in one database. It is released
// when the commit can be seen.
const (
	lockFeed = `SELECT pg_advisory_xact_lock(1398034258, 'feed'::regclass::oid::int4)`
	holdFeed = `SELECT pg_advisory_xact_lock_shared(1398034258, 'feed'::regclass::oid::int4)`
	announce = `SELECT pg_notify('` + feedChannel + `', '')`
)

func newDialect(password string) sqlstore.Dialect {
	return sqlstore.Dialect{
		LockFeed: lockFeed,
		HoldFeed: holdFeed,
		Announce: announce,
		Fault:    fault,
		InDoubt:  inDoubt,
		Text:     func(err error) string { return describe(err, password) },
		MaxRows:  64,
	}
}

// fault: a connection that turns out to be lost is no reason to fail, because
// the server may be back: what was not committed is repeated on another one.
func fault(err error) sqlstore.Fault {
	if e := (*pgconn.PgError)(nil); errors.As(err, &e) {
		switch e.Code {
		case "23505": // unique_violation
			return sqlstore.FaultTaken
		case "23503": // foreign_key_violation
			return sqlstore.FaultReference
		case "40001", "40P01", // serialization_failure, deadlock_detected
			"57P01", "57P02": // admin_shutdown, crash_shutdown
			return sqlstore.FaultRepeat
		}
		return sqlstore.FaultUnavailable
	}
	if e := (*pgconn.ConnectError)(nil); errors.As(err, &e) {
		return sqlstore.FaultUnavailable // there is no server to repeat it on
	}
	network := (*net.OpError)(nil)
	if errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.As(err, &network) && !network.Timeout() || pgconn.SafeToRetry(err) {
		return sqlstore.FaultRepeat
	}
	return sqlstore.FaultUnavailable
}

// inDoubt: only the server's own word that a commit failed is proof.
func inDoubt(err error) bool {
	if errors.Is(err, pgx.ErrTxCommitRollback) || errors.Is(err, pgx.ErrTxClosed) {
		return false
	}
	if e := (*pgconn.PgError)(nil); errors.As(err, &e) {
		switch e.Code[:min(2, len(e.Code))] {
		case "23", "25", "40", "53": // constraints, state, rollback, resources
			return false
		}
	}
	return true
}

// describe gives an error's text in one line. The drivers' errors show no
// password, and if one ever did it would not get past here.
func describe(err error, password string) string {
	text := strings.Join(strings.Fields(err.Error()), " ")
	if password != "" {
		text = strings.ReplaceAll(text, password, "REDACTED")
	}
	return text
}
