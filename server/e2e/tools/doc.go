// Package tools holds the tests of the backup and S3 tools that people already
// run: each takes Stoker's credentials in each way that it knows, while they
// change under it, while the broker is away, and when they are revoked. What
// the tests see is the table in docs/tools.md.
//
// It has no code of its own.
package tools
