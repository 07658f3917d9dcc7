package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/stokerd/stoker/client"
)

// A backup program opens a source, waits for the first credential, and gives
// the provider to its S3 client.
func Example() {
	ctx := context.Background()
	source, err := client.New(ctx, client.Config{
		Brokers:  []string{"broker1.example.com:7443", "broker2.example.com:7443"},
		CAFile:   "/etc/acmebackup/ca.pem",
		CertFile: "/etc/acmebackup/agent.pem",
		KeyFile:  "/etc/acmebackup/agent.key",
		Login:    "nightly@acme",
		Password: func(context.Context) (string, error) {
			password, err := os.ReadFile("/etc/acmebackup/password")
			return strings.TrimSpace(string(password)), err
		},
		Grants: []string{"photos"},
		Client: "acmebackup/3.1",
	})
	if err != nil {
		log.Fatal(err)
	}
	defer source.Close()

	starting, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := source.Wait(starting); err != nil {
		log.Fatal(err)
	}
	// s3.New(s3.Options{Credentials: source.CredentialsProvider("photos"), Region: ...})
	_ = source.CredentialsProvider("photos")
}

// Errors carry the broker's reason, which says whether waiting can help.
func ExampleSource_Credential() {
	var source *client.Source // from client.New

	credential, err := source.Credential("photos")
	var failed *client.Error
	switch {
	case err == nil:
		fmt.Println("good until", credential.Expires)
	case errors.Is(err, client.ErrRevoked):
		fmt.Println("stop:", client.ReasonOf(err))
	case errors.As(err, &failed) && !failed.Transient:
		fmt.Println("somebody must act:", failed)
	default:
		fmt.Println("not now:", err)
	}
}

// Watch tells what happens, for a status display or a log.
func ExampleSource_Watch() {
	var source *client.Source // from client.New

	stop := source.Watch(func(e client.Event) {
		switch e.Kind {
		case client.EventConnected:
			fmt.Println("supplied by", e.Broker)
		case client.EventCredential:
			fmt.Println(e.Grant, "is good until", e.Credential.Expires)
		case client.EventProblem, client.EventRevocation:
			fmt.Println(e.Grant, "is in trouble:", e.Err)
		}
	})
	defer stop()
}
