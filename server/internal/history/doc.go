// Package history checks what was seen of a broker under load against what must
// always hold.
//
// It owns the rules: who must not get a credential after a cut-off was
// acknowledged, which keys a credential may open, that issue times increase,
// that nothing leaves without its record. It knows nothing of how a history was
// gathered, and only tests and measurements import it. Each rule has a test that
// breaks it in a forged history.
package history
