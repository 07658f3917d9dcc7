// Package light is a gRPC client that is cheap enough to have ten thousand of
// in one process: one TLS connection, one goroutine, no timers, about 20 KiB.
//
// It owns the HTTP/2 framing, the static flow-control windows and gRPC's
// message framing. It dials when told, never reconnects, never retries, and
// answers the broker's pings without sending any of its own. It is for
// measuring servers; real agents use package client.
package light
