// Package postgres starts real PostgreSQL servers for tests: on loopback, with
// their data in a temporary directory, ended with the test.
//
// It owns the server's life (start, stop, kill, restart), a database of its
// own for each test, and a Link through which a test can cut a client off or
// leave it hanging. What is asked of the database is the test's business.
package postgres
