// Package carrier carries the streams of package stream over gRPC calls. It
// owns what every API that serves streams needs alike: how a call is ended from
// the broker's side, how a stream's messages are written, and what is done apart
// from the goroutine that waits. It decides nothing.
package carrier
