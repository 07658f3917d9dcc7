// Package polling waits in tests for what tells nobody when it has come: another
// process, a file, the answer of a call.
//
// It owns the asking again and its end, and nothing of what is asked. What does
// tell is not polled: a channel, a stream, or time in a synctest bubble. Only
// tests import it.
package polling
