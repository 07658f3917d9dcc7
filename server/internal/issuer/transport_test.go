package issuer

import (
	"io"
	"net/http"
	"testing"
	"time"
)

// recording keeps the requests that net/http would send.
type recording struct{ requests []*http.Request }

func (r *recording) RoundTrip(request *http.Request) (*http.Response, error) {
	r.requests = append(r.requests, request)
	return nil, io.ErrUnexpectedEOF
}

// TestRequestsAreSentFromMemory: with the SDK's own body, an answer that comes
// in two parts now and then lost its connection between them.
func TestRequestsAreSentFromMemory(t *testing.T) {
	a, sent := silentAccount(), &recording{}
	a.HTTPClient = &http.Client{Transport: sent}
	if e := issueError(t, open(t, a)); e.Code != CodeUnreachable {
		t.Errorf("got %v", e)
	}
	if len(sent.requests) != 1 {
		t.Fatalf("%d requests", len(sent.requests))
	}
	r := sent.requests[0]
	if r.GetBody == nil || r.ContentLength <= 0 {
		t.Errorf("the body cannot be sent again: %+v", r)
	}
	if _, copies := r.Body.(io.WriterTo); !copies {
		return
	}
	if err := r.Body.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Body.(io.WriterTo).WriteTo(io.Discard); err != nil {
		t.Errorf("after Close the body fails: %v", err)
	}
}

func TestAnswersInTwoParts(t *testing.T) {
	a := answering(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		answer := granted("ASIAX", otherSecret, otherToken, time.Now().Add(15*time.Minute))
		_, _ = io.WriteString(w, answer[:100])
		_ = http.NewResponseController(w).Flush()
		_, _ = io.WriteString(w, answer[100:])
	})
	s := open(t, a)
	for range 100 {
		if _, err := s.Issue(t.Context(), request()); err != nil {
			t.Fatal(err)
		}
	}
}
