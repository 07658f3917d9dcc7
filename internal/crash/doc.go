// Package crash kills a test's own program in the middle of its work.
//
// It owns the child process, which is the test binary itself, and what that has
// said. What the child does, and what has to be there after it, stays with the
// test, whose TestMain knows the child by its environment. Only tests import it.
package crash
