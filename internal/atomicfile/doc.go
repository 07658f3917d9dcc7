// Package atomicfile replaces files so that nobody ever finds a part of one: a
// reader has the old content or the new, and so has whoever looks after a crash
// or a full disk.
//
// It owns temporary files, renames, their durability, and locks between
// processes. What is in a file, who may read it and in which order several of
// them change is its callers' business.
package atomicfile
