package doctor

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/stokerd/stoker/server/internal/storage"
)

const (
	// bucketLimit bounds one call to S3, maxAnswer its answer, in bytes. A
	// bucket policy has 20 KiB at most.
	bucketLimit = 5 * time.Second
	maxAnswer   = 256 << 10
	// emptyPayload is the SHA-256 of nothing.
	emptyPayload = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

// buckets makes the two calls to S3 that are needed, without S3's whole SDK.
type buckets struct {
	http   *http.Client
	signer *v4.Signer
}

func newBuckets(client *http.Client) *buckets {
	if client == nil {
		client = &http.Client{Timeout: bucketLimit}
	} else {
		copied := *client
		client = &copied
	}
	// A redirect means another region: the signature would not hold there.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &buckets{http: client, signer: v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })}
}

// refusal is S3's answer to a call that it did not carry out.
type refusal struct {
	Status int
	Code   string
}

// Error gives the code, which comes from S3 and so from elsewhere.
func (r *refusal) Error() string {
	if r.Code == "" {
		return fmt.Sprintf("S3 answers with HTTP status %d", r.Status)
	}
	return fmt.Sprintf("S3 answers %.64q", r.Code)
}

// code gives the code of a refusal, "" for any other error.
func code(err error) string {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.Code
	}
	return ""
}

// service is the URL of the location's S3; ok is false where an account's own
// STS has no S3 that is known.
func service(l storage.Location, sts string) (service string, ok bool) {
	switch {
	case l.Endpoint != "":
		return strings.TrimSuffix(l.Endpoint, "/"), true
	case sts != "":
		return "", false
	case strings.HasPrefix(l.Region, "cn-"):
		return "https://s3." + l.Region + ".amazonaws.com.cn", true
	}
	return "https://s3." + l.Region + ".amazonaws.com", true
}

// get asks S3 about a bucket. The error is a *refusal or says why there is no
// answer.
func (b *buckets) get(ctx context.Context, service string, l storage.Location, keys aws.Credentials, query url.Values) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, bucketLimit)
	defer cancel()
	// By path: it works with dots in the name and with every S3 there is.
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, service+"/"+url.PathEscape(l.Bucket)+"?"+query.Encode(), http.NoBody)
	if err != nil {
		return nil, err
	}
	request.Header.Set("X-Amz-Content-Sha256", emptyPayload)
	if err := b.signer.SignHTTP(ctx, keys, request, emptyPayload, "s3", l.Region, time.Now()); err != nil {
		return nil, err
	}
	response, err := b.http.Do(request)
	if err != nil {
		// The error repeats the URL, which holds no secret, and the network's.
		return nil, fmt.Errorf("S3 cannot be reached: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("S3's answer broke off: %w", err)
	}
	if response.StatusCode == http.StatusOK {
		return body, nil
	}
	var failure struct {
		Code string `xml:"Code"`
	}
	// An answer that is no XML has no code: the status says enough.
	_ = xml.Unmarshal(body, &failure)
	return nil, &refusal{response.StatusCode, failure.Code}
}

// policy reads the bucket's policy.
func (b *buckets) policy(ctx context.Context, service string, l storage.Location, keys aws.Credentials) ([]byte, error) {
	return b.get(ctx, service, l, keys, url.Values{"policy": {""}})
}

// list lists at most one key under a prefix; "" lists without one.
func (b *buckets) list(ctx context.Context, service string, l storage.Location, keys aws.Credentials, prefix string) error {
	query := url.Values{"list-type": {"2"}, "max-keys": {"1"}}
	if prefix != "" {
		query.Set("prefix", prefix)
	}
	_, err := b.get(ctx, service, l, keys, query)
	return err
}
