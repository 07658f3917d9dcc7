// Package admission decides which connections a listener takes before anybody
// has proved who they are.
//
// It owns the bounds on strangers: how many connections one address may have
// open and how fast it may open them, how many handshakes may be in progress,
// and how many connections there may be at all. What it remembers of strangers
// is bounded too. It reads and writes nothing on a connection and knows nothing
// of TLS: the caller says when a handshake has succeeded. Who the peer is, and
// what it may call, is for authn to say.
package admission
