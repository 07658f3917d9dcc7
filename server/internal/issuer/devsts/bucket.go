package devsts

import (
	"encoding/xml"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// s3Service is S3's name in credential scopes, listObjectsV2 its one call here.
const (
	s3Service     = "s3"
	listObjectsV2 = "ListObjectsV2"
	maxListed     = 1_000
)

var bucketPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

type listBucketResult struct {
	XMLName     xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListBucketResult"`
	Name        string
	Prefix      string
	Delimiter   string `xml:",omitempty"`
	KeyCount    int
	MaxKeys     int
	IsTruncated bool
}

type bucketFailure struct {
	XMLName   xml.Name `xml:"Error"`
	Code      string
	Message   string
	RequestID string `xml:"RequestId"`
}

// serveBucket answers the one call of S3 that there is: ListObjectsV2 of a
// bucket by path. Every bucket exists and is empty.
//
// It is how an issued credential is tried out. The calls of STS and IAM do not
// serve for that: GetCallerIdentity is never denied, and federated users may
// make no other.
func (s *STS) serveBucket(w http.ResponseWriter, r *http.Request, now time.Time, requestID string) {
	s.count(listObjectsV2)
	result, err := s.listObjects(w, r, now, requestID)
	if err == nil {
		var body []byte
		if body, err = xml.Marshal(result); err == nil {
			writeBody(w, http.StatusOK, body)
			return
		}
	}
	known := s.known(err, requestID)
	code := known.code
	if code == "InvalidClientTokenId" {
		code = "InvalidAccessKeyId" // as S3 calls it
	}
	body, err := xml.Marshal(bucketFailure{Code: code, Message: strings.ToValidUTF8(known.message, "\uFFFD"), RequestID: requestID})
	if err != nil {
		http.Error(w, "the error cannot be written", http.StatusInternalServerError)
		return
	}
	writeBody(w, known.status, body)
}

func (s *STS) listObjects(w http.ResponseWriter, r *http.Request, now time.Time, requestID string) (*listBucketResult, error) {
	body, err := readBody(w, r)
	if err != nil {
		return nil, err
	}
	caller, _, err := s.authenticate(r, body, now)
	if err != nil {
		return nil, err
	}
	bucket := strings.Trim(r.URL.Path, "/")
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "InvalidURI", "Couldn't parse the specified URI.")
	}
	if r.Method != http.MethodGet || !bucketPattern.MatchString(bucket) || query.Get("list-type") != "2" {
		return nil, refuse(http.StatusNotImplemented, "NotImplemented", "This STS knows one call of S3: ListObjectsV2 of a bucket.")
	}
	result := &listBucketResult{Name: bucket, Prefix: query.Get("prefix"), Delimiter: query.Get("delimiter"), MaxKeys: maxListed}
	if query.Has("max-keys") {
		if result.MaxKeys, err = strconv.Atoi(query.Get("max-keys")); err != nil || result.MaxKeys < 0 {
			return nil, refuse(http.StatusBadRequest, "InvalidArgument", "Provided max-keys not an integer or within integer range")
		}
	}
	c := &call{service: s3Service, action: "ListBucket", caller: caller, now: now, requestID: requestID}
	if err := s.before(r.Context(), s.takeFault(listObjectsV2), c); err != nil {
		return nil, err
	}
	return result, s.mayList(c, bucket, query)
}

// mayList evaluates the inline policies of the user or role behind the
// credential and the session's own policy, as S3 does.
func (s *STS) mayList(c *call, bucket string, query url.Values) error {
	request := access{action: "s3:ListBucket", resource: "arn:aws:s3:::" + bucket, keys: s.keys(c)}
	for key, parameter := range map[string]string{keyPrefix: "prefix", keyDelimiter: "delimiter", keyMaxKeys: "max-keys"} {
		if query.Has(parameter) {
			request.keys[key] = query.Get(parameter)
		}
	}
	if denied(s.inlineStatements(c.caller), request) {
		return explicitlyDenied(c, request.resource)
	}
	session := c.caller.session
	switch {
	case session == nil, session.Policy == "" && session.Kind == roleSession:
		// The user's or the role's own rights.
		return nil
	case session.Policy == "":
		return accessDenied(c) // a federated user's rights are those of its policy
	}
	statements, err := readPolicy(session.Policy)
	if err != nil {
		return refuse(http.StatusNotImplemented, "NotImplemented", "The session policy is valid, but %s.", err)
	}
	if denied(statements, request) {
		return refuse(http.StatusForbidden, "AccessDenied", "%s on resource: %s with an explicit deny in a session policy", notAuthorized(c), request.resource)
	}
	if !allowed(statements, request) {
		return refuse(http.StatusForbidden, "AccessDenied", "%s on resource: %s because no session policy allows the s3:ListBucket action", notAuthorized(c), request.resource)
	}
	return nil
}
