// Package postgres keeps the broker's data in PostgreSQL (12 or later), for
// several replicas.
//
// It owns the connections and their settings, the tables, the lock that keeps
// the change feed in order over all replicas, and the LISTEN connection by
// which they hear of each other's changes. The queries are in sqlstore.
//
// The broker speaks to the server itself: LISTEN and the settings of a
// connection do not survive a pooler that hands out another connection for
// each transaction.
package postgres
