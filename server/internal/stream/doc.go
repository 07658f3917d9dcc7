// Package stream keeps the open streams: what each agent has subscribed to,
// what waits to be sent to it, and when and why its stream ends.
//
// It owns the outbox of a stream (bounded, the latest for each grant), the
// limits on what an agent may open and say, the heartbeats, the end of streams
// whose certificate or session ends, the re-check of streams when something
// changes, and the farewell when the broker shuts down. Whether a caller is
// still good is for authn to say, which credential a grant has is for lease;
// this package asks both and issues nothing. It knows nothing of gRPC: a stream
// speaks through its Conn.
//
// An idle stream has one goroutine, its Conn's own, which waits for the agent's
// next message. What is to be sent is filed in the outbox by whoever has it and
// never waits; a goroutine that drains the outbox lives only while there is
// something in it. So a slow or stuck agent blocks that one goroutine and
// nobody else, and everything meant for it meanwhile coalesces.
package stream
