package devsts

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// apiError is an error answer of the Query protocol.
type apiError struct {
	status     int
	code       string
	message    string
	retryAfter time.Duration
}

func (e *apiError) Error() string { return e.code + ": " + e.message }

func refuse(status int, code, format string, args ...any) error {
	return &apiError{status: status, code: code, message: fmt.Sprintf(format, args...)}
}

// success is the envelope of an answer. Result is a struct whose XMLName is
// the operation's name with Result after it.
type success struct {
	XMLName   xml.Name
	Namespace string `xml:"xmlns,attr"`
	Result    any
	RequestID string `xml:"ResponseMetadata>RequestId"`
}

type failure struct {
	XMLName   xml.Name `xml:"ErrorResponse"`
	Namespace string   `xml:"xmlns,attr"`
	Type      string   `xml:"Error>Type"`
	Code      string   `xml:"Error>Code"`
	Message   string   `xml:"Error>Message"`
	RequestID string   `xml:"RequestId"`
}

// renderSuccess gives the body of an answer.
func renderSuccess(namespace, action, requestID string, result any) ([]byte, error) {
	return xml.MarshalIndent(success{
		XMLName:   xml.Name{Local: action + "Response"},
		Namespace: namespace,
		Result:    result,
		RequestID: requestID,
	}, "", "  ")
}

// writeError writes an error in AWS's form: the caller's fault is Sender, the
// service's Receiver.
func writeError(w http.ResponseWriter, namespace, requestID string, e *apiError) {
	kind := "Sender"
	if e.status >= http.StatusInternalServerError {
		kind = "Receiver"
	}
	if e.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(e.retryAfter/time.Second)))
	}
	// Characters that XML cannot carry become U+FFFD, so this cannot fail.
	body, err := xml.MarshalIndent(failure{
		Namespace: namespace, Type: kind, Code: e.code,
		Message: strings.ToValidUTF8(e.message, "\uFFFD"), RequestID: requestID,
	}, "", "  ")
	if err != nil {
		http.Error(w, "the error cannot be written", http.StatusInternalServerError)
		return
	}
	writeBody(w, e.status, body)
}

// writeBody writes a whole answer. An error of the connection is the client's
// affair: nobody is left to be told.
func writeBody(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "text/xml")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) //nolint:gosec // the XML encoder has escaped it
}
