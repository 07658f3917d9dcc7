// Package doctor checks what a broker leans on, and tries a grant out from the
// policy to the bucket.
//
// It owns what is checked and what is said about it. A credential that it has
// issued is recorded before, used for two listings, and dropped: it never
// leaves this package. It changes nothing.
package doctor
