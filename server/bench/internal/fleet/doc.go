// Package fleet plays thousands of agents: it connects them, keeps what they
// are sent, acknowledges it, comes back as package client does when a stream
// ends, and says how long everything took.
//
// It owns the agents' side of a measurement and the checks that only an agent
// can make: that issue times grow, that no credential falls too low, that there
// is never none. It starts no server and draws no conclusions.
package fleet
