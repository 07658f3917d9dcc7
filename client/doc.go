// Package client keeps a program supplied with the short-lived AWS credentials
// of a Stoker broker. It is meant to be embedded by backup products.
//
// A [Source] holds one stream to the broker. It waits for the first credential,
// has the last good one in memory from then on, is an aws.CredentialsProvider,
// and reconnects, logs in again and fails over by itself until it is closed:
//
//	source, err := client.New(ctx, client.Config{
//		Brokers:  []string{"broker.example.com:7443"},
//		CAFile:   "ca.pem",
//		CertFile: "agent.pem",
//		KeyFile:  "agent.key",
//		Login:    "nightly@acme",
//		Password: func(context.Context) (string, error) { return readPassword() },
//	})
//	if err != nil { ... }
//	defer source.Close()
//	if err := source.Wait(ctx); err != nil { ... }
//	s3 := s3.New(s3.Options{Credentials: source.CredentialsProvider("photos"), Region: ...})
//
// # What a Source does when something fails
//
// Nothing takes the last good credential away but its own end and the broker's
// revocation: of the credential or its grant, or of the user, the agent, its
// certificate, the tenant, or the rule that a service acts by. Whether waiting helps is decided by the broker's reason alone
// (see [Transient]). After a transient error the source tries again with full
// jitter and a growing delay, the broker's own advice included. After a
// permanent one, such as a rejected password, it tries again every few minutes
// and asks the password function anew each time: a credential source that gave
// up would need a person at every machine after the provider has corrected the
// mistake. [Source.Wait] returns a permanent error at once, so that a person at
// the terminal sees it.
//
// # Certificates
//
// [Enroll] gets a new agent its certificate for a join token. A Source whose
// certificate is in files takes a replaced one into use without a gap: it logs in
// with it while the old stream goes on, then moves the stream and resumes what it
// holds. With Config.Renew it also renews the certificate itself in good time.
//
// The package owns the connection, the login, the credentials in memory, and,
// where it is told to enroll or to renew, the files of the certificate. It writes
// no other file, never reads the environment (but for the proxy settings that
// gRPC honors), has no global state, and starts no goroutine that outlives
// [Source.Close].
package client
