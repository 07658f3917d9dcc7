// Package hands runs short jobs on goroutines that are kept for the next job.
//
// It owns when a goroutine begins and ends, and nothing of what the jobs do. A
// job that comes in thousands a second costs less on a goroutine that has
// already done one: its stack has grown to what the job needs, and growing it
// can take longer than the job itself.
package hands
