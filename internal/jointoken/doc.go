// Package jointoken writes and reads join tokens, which let one new agent
// enroll once.
//
// It owns the text's form, which the broker and the agent share:
//
//	stoker-join.ID.SECRET.PIN
//
// each part in base64url without padding. The ID finds the invitation, the
// secret proves that the bearer was invited, and the pin (SHA-256 of the public
// key of the broker's authority) lets an agent that has no certificate yet
// recognize the broker. It stores nothing and knows no storage: the broker
// keeps the ID and the secret's hash.
package jointoken
