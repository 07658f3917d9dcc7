// Package planted finds out whether a file that is read because of where it lies
// was put there by somebody who may.
//
// It owns whose files are trusted on which system, and reads none of them.
package planted
