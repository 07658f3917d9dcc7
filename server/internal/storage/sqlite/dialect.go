package sqlite

import (
	"errors"

	driver "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/stokerd/stoker/server/internal/storage/internal/sqlstore"
)

// dialect: every writing transaction begins IMMEDIATE on the one writing
// connection, so the feed is still from its beginning on.
var dialect = sqlstore.Dialect{
	Fault:      fault,
	InDoubt:    inDoubt,
	Text:       describe,
	MaxRows:    1,
	Unnumbered: true,
	PrepareHot: true,
}

func fault(err error) sqlstore.Fault {
	switch code(err) {
	case lib.SQLITE_CONSTRAINT_UNIQUE, lib.SQLITE_CONSTRAINT_PRIMARYKEY:
		return sqlstore.FaultTaken
	case lib.SQLITE_CONSTRAINT_FOREIGNKEY:
		return sqlstore.FaultReference
	}
	return sqlstore.FaultUnavailable
}

// inDoubt: when a sync fails the commit may already lie in the log, and would
// be found there by the next process if this one died before its next commit.
func inDoubt(err error) bool { return code(err)&0xff == lib.SQLITE_IOERR }

func describe(err error) string {
	switch code(err) & 0xff {
	case lib.SQLITE_NOTADB:
		return "the file is not a SQLite database, or its first page is damaged"
	case lib.SQLITE_CORRUPT:
		return "the database file is damaged: restore it from a backup: " + err.Error()
	case lib.SQLITE_FULL:
		return "the disk is full"
	}
	return err.Error()
}

// code gives SQLite's extended result code, 0 for other errors.
func code(err error) int {
	if e := (*driver.Error)(nil); errors.As(err, &e) {
		return e.Code()
	}
	return 0
}
