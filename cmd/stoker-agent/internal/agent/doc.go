// Package agent is the agent that stays: a source for each user, what hands their
// credentials out, the hook, and the report of how all of it stands.
//
// It owns the order in which these start and end. Which settings they have is
// decided before, and what each of them does in packages client, client/delivery
// and hook.
package agent
