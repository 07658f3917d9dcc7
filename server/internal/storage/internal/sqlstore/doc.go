// Package sqlstore is the part of a backend that is the same in every SQL
// database.
//
// It owns the queries, the mapping of the stored types to tables, the
// transactions with their change feed, and the translation of failures into
// the errors of package storage. What databases do differently is a Dialect:
// how the feed is held still, how other replicas hear of a commit, what a
// driver's error means. It opens no database, knows no driver, and its tables
// come from the migrations of the backend that uses it.
package sqlstore
