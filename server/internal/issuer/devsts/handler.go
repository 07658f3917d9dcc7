package devsts

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// service is one AWS service by its name in credential scopes. Another one
// with the same protocol is added to STS.services.
type service struct {
	name       string
	version    string
	namespace  string
	operations map[string]operation
}

// operation does one action. Its result has an XMLName.
type operation func(*STS, *call) (any, error)

// call is one authenticated request.
type call struct {
	service    string // its name in credential scopes
	action     string
	caller     *principal
	parameters *parameters
	now        time.Time
	requestID  string
	skew       time.Duration // of the expiry, by a fault
}

var stsService = service{
	name:      "sts",
	version:   "2011-06-15",
	namespace: "https://sts.amazonaws.com/doc/2011-06-15/",
	operations: map[string]operation{
		"AssumeRole":         (*STS).assumeRole,
		"GetCallerIdentity":  (*STS).getCallerIdentity,
		"GetFederationToken": (*STS).getFederationToken,
	},
}

// ServeHTTP answers one call.
func (s *STS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := s.config.Clock().UTC()
	requestID := newRequestID()
	w.Header().Set("X-Amzn-Requestid", requestID)
	// Clients measure clock skew by this header, so it must be this clock's.
	w.Header().Set("Date", now.Format(http.TimeFormat))
	if claim, err := readAuthorization(r); err == nil && claim.scope.service == s3Service && r.URL.Path != "/" {
		s.serveBucket(w, r, now, requestID)
		return
	}
	service, result, err := s.answer(w, r, now, requestID)
	if err == nil {
		writeBody(w, http.StatusOK, result)
		return
	}
	writeError(w, service.namespace, requestID, s.known(err, requestID))
}

// known gives the error as callers may see it.
func (s *STS) known(err error, requestID string) *apiError {
	known, ok := errors.AsType[*apiError](err)
	if !ok {
		s.config.Logger.Error("dev STS: a call failed", "request", requestID, "error", err)
		known = &apiError{status: http.StatusInternalServerError, code: "InternalFailure", message: "The request processing has failed because of an unknown error."}
	}
	return known
}

// answer gives the answer's body, and the service in whose name an error is
// written.
func (s *STS) answer(w http.ResponseWriter, r *http.Request, now time.Time, requestID string) (service, []byte, error) {
	body, p, err := s.read(w, r)
	if err != nil {
		return stsService, nil, err
	}
	action, _ := p.text("Action")
	s.count(action)
	caller, scope, err := s.authenticate(r, body, now)
	if err != nil {
		return stsService, nil, err
	}
	target, known := s.services[scope.service]
	if !known {
		return stsService, nil, wrongService()
	}
	run, err := target.operation(p, action)
	if err != nil {
		return target, nil, err
	}
	c := &call{service: target.name, action: action, caller: caller, parameters: p, now: now, requestID: requestID}
	fault := s.takeFault(action)
	if err := s.before(r.Context(), fault, c); err != nil {
		return target, nil, err
	}
	if err := s.authorize(c); err != nil {
		return target, nil, err
	}
	result, err := run(s, c)
	if err != nil {
		return target, nil, err
	}
	answer, err := renderSuccess(target.namespace, action, requestID, result)
	return target, fault.garble(answer), err
}

// read gives the body and the parameters of a request in the protocol's form.
func (s *STS) read(w http.ResponseWriter, r *http.Request) ([]byte, *parameters, error) {
	if r.Method != http.MethodPost && r.Method != http.MethodGet {
		return nil, nil, refuse(http.StatusMethodNotAllowed, "InvalidAction", "The method must be POST or GET.")
	}
	if r.URL.Path != "/" && r.URL.Path != "" {
		return nil, nil, refuse(http.StatusNotFound, "InvalidAction", "The only path is /.")
	}
	body, err := readBody(w, r)
	if err != nil {
		return nil, nil, err
	}
	p, err := parseParameters(r.URL.RawQuery, string(body))
	return body, p, err
}

// operation finds the action of the right version.
func (s service) operation(p *parameters, action string) (operation, error) {
	version, _ := p.text("Version")
	if action == "" {
		return nil, refuse(http.StatusBadRequest, "MissingAction", "The request is missing an Action parameter.")
	}
	run, known := s.operations[action]
	if !known || version != s.version {
		return nil, refuse(http.StatusBadRequest, "InvalidAction", "Could not find operation %s for version %s", clip(action), clip(version))
	}
	return run, nil
}

// before does what a fault does ahead of the operation.
func (s *STS) before(ctx context.Context, fault *Fault, c *call) error {
	if fault == nil {
		return nil
	}
	switch fault.Kind {
	case Throttle:
		return &apiError{status: http.StatusBadRequest, code: "Throttling", message: "Rate exceeded", retryAfter: fault.RetryAfter}
	case ServerError:
		return refuse(http.StatusInternalServerError, "InternalFailure", "The request processing has failed because of an unknown error, exception or failure.")
	case Unavailable:
		return &apiError{status: http.StatusServiceUnavailable, code: "ServiceUnavailable", message: "The request has failed due to a temporary failure of the server.", retryAfter: fault.RetryAfter}
	case Deny:
		return accessDenied(c)
	case Drop:
		panic(http.ErrAbortHandler)
	case Hang:
		s.wait(ctx, 0)
		panic(http.ErrAbortHandler)
	case Delay:
		s.wait(ctx, fault.Delay)
	case SkewExpiry:
		c.skew = fault.Skew
	}
	return nil
}

// wait holds a call for d, for ever if d is zero, or until its client leaves
// or the service closes.
func (s *STS) wait(ctx context.Context, d time.Duration) {
	var over <-chan time.Time
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-over:
	case <-ctx.Done():
	case <-s.stop:
	}
}
