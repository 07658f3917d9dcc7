package awsiam

import (
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/smithy-go/logging"
)

// Timeout bounds one call.
const Timeout = 15 * time.Second

// Config says how to reach an account's IAM.
type Config struct {
	// Region signs the calls where there is an Endpoint, and otherwise chooses
	// the partition, each of which has one IAM.
	Region string
	// Endpoint is the base URL of another IAM than AWS's. Default: AWS.
	Endpoint string
	// Keys are the broker's own, as the account uses them at the moment of a
	// call.
	Keys aws.CredentialsProvider
}

// Client is the SDK's client of one account's IAM, with the connections that it
// holds.
type Client struct {
	*iam.Client
	transport *http.Transport
}

// New makes the client. It calls nobody.
func New(c Config) *Client {
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		ForceAttemptHTTP2:   true,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: 5 * time.Second,
		IdleConnTimeout:     30 * time.Second,
	}
	client := iam.New(iam.Options{
		Region: c.Region, Credentials: c.Keys, AppID: "stoker",
		// The callers own retries: one that was made unseen might create two
		// keys. The SDK's logs would show them.
		Retryer: aws.NopRetryer{}, Logger: logging.Nop{},
		HTTPClient: &http.Client{
			Transport: transport, Timeout: Timeout,
			// A signed request is nobody else's.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, func(o *iam.Options) {
		if c.Endpoint != "" {
			o.BaseEndpoint = aws.String(c.Endpoint)
		}
	})
	return &Client{client, transport}
}

// Close lets go of idle connections.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Name gives the name, without its path, that an ARN has for a user or a role,
// as the noun says. ok is false where the ARN is of something else.
func Name(noun string, of arn.ARN) (name string, ok bool) {
	path, ok := strings.CutPrefix(of.Resource, noun+"/")
	name = path[strings.LastIndexByte(path, '/')+1:]
	return name, ok && name != ""
}
