// Package clienttest lets a program that embeds package client be tested
// without a broker: [New] starts a small working broker in the test's own
// process, with real gRPC, real TLS 1.3 and an authority of its own, that a test
// can make to push, fail, revoke, hang and disappear.
//
//	broker := clienttest.New(t, clienttest.WithGrants("photos"))
//	source, err := client.New(t.Context(), broker.Config())
//	...
//	broker.Push("photos", time.Hour)
//
// With [InMemory] it opens no socket and works inside testing/synctest, so that
// hours of renewals pass in no time.
//
// It owns what a broker says to its agents, and nothing else: its keys are made
// up and open no S3, and it checks no more than an agent can notice. It is not
// for anything but tests.
package clienttest
