// Package apierr is the only place where an error becomes a gRPC status.
//
// It owns the mapping from reasons and storage errors to status codes, and
// what a caller may learn of an error: an error it does not know is Internal
// with a fixed text and the request id, and the whole of it goes to the log,
// once. It never decides anything.
package apierr
