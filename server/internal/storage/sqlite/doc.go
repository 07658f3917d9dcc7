// Package sqlite keeps the broker's data in one SQLite file: nothing to
// install, for a single broker.
//
// It owns the file, its permissions, its connections (one that writes, several
// that read, in WAL mode, each commit synced) and its tables. The queries are
// in sqlstore. One process at a time is meant to use a file: others would be
// kept apart by its locks, but Watch hears only of changes made through the
// same Store.
package sqlite
