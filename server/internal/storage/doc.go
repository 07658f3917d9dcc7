// Package storage says what the broker keeps and how it is asked for.
//
// It owns the stored types, the interfaces that a backend satisfies, and the
// errors that a backend answers. It holds no SQL and imports the standard
// library alone; sqlite and postgres implement it, storagetest is the
// conformance suite that both pass: each sentence of the interfaces' comments
// has a case there.
//
// Nothing stored is a credential: issued keys live in memory only, and what
// the broker must keep secret at rest (SealedKey) reaches this package sealed.
package storage
