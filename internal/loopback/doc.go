// Package loopback serves a test's own gRPC services on loopback.
//
// It owns the listener and the end of the serving, which is that of the test.
// What is served, with TLS or without, stays with the test. Only tests import
// it.
package loopback
