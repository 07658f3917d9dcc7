package site

import (
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/stokerd/stoker/server/internal/issuer/devsts"
)

// STS is the site's STS: a local one behind a door that can be shut, and that
// lets no more through than the quota. Its methods are safe for concurrent use.
type STS struct {
	*devsts.STS
	http   *http.Server
	url    string
	served chan error

	mu    sync.Mutex
	down  bool
	quota *rate.Limiter // nil: none
	// arrived is when calls came, those of the last window alone; most is the
	// largest number of them that there ever was.
	arrived         []time.Time
	most            int
	calls, refusals int64
}

// window is what calls a second are counted over.
const window = time.Second

// throttled is how AWS says that there were too many calls.
const throttled = `<ErrorResponse><Error><Type>Sender</Type><Code>Throttling</Code><Message>Rate exceeded</Message></Error></ErrorResponse>`

func startSTS(c devsts.Config) (*STS, error) {
	inner, err := devsts.New(c)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &STS{STS: inner, url: "http://" + listener.Addr().String(), served: make(chan error, 1)}
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: 5 * time.Second}
	go func() { s.served <- s.http.Serve(listener) }()
	return s, nil
}

// ServeHTTP implements http.Handler.
func (s *STS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	down, refused := s.arrive(time.Now())
	switch {
	case down:
		// As from a network that ends nowhere, but without the wait.
		panic(http.ErrAbortHandler)
	case refused:
		w.Header().Set("Content-Type", "text/xml")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(throttled))
	default:
		s.STS.ServeHTTP(w, r)
	}
}

// arrive counts a call.
func (s *STS) arrive(now time.Time) (down, refused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	first := 0
	for first < len(s.arrived) && now.Sub(s.arrived[first]) >= window {
		first++
	}
	s.arrived = append(s.arrived[first:], now)
	s.most = max(s.most, len(s.arrived))
	if s.down {
		return true, false
	}
	if s.quota != nil && !s.quota.AllowN(now, 1) {
		s.refusals++
		return false, true
	}
	return false, false
}

// Down shuts the door, or opens it.
func (s *STS) Down(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// Quota lets so many calls a second through, and a second's worth at once; 0
// lifts it. Those beyond are throttled.
func (s *STS) Quota(perSecond float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quota = nil
	if perSecond > 0 {
		s.quota = rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond)))
	}
}

// Load is what the STS has seen.
type Load struct {
	// Calls arrived, Throttled of them were refused for the quota.
	Calls, Throttled int64
	// Most is how many came within one second.
	Most int
}

// Load gives the counts since the last time that it was asked.
func (s *STS) Load() Load {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := Load{Calls: s.calls, Throttled: s.refusals, Most: s.most}
	s.calls, s.refusals, s.most = 0, 0, 0
	return l
}

// Close ends it.
func (s *STS) Close() error {
	s.STS.Close()
	err := s.http.Close()
	if served := <-s.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
