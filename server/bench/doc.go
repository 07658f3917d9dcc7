// Package bench measures brokers under the load of thousands of agents, and
// beside them bare grpc-go under the same load in the same run.
//
// It owns what is measured and in which order, the report, and the plan of
// capacity. Each server runs in a process of its own, so that its memory and
// processor time are its own; the agents run here. Everything stays on loopback
// and ends with Run.
package bench
