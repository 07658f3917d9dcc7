package client

import "time"

// Status is what a source is doing at present.
type Status struct {
	// Connected: there is a stream, since Since, to Broker.
	Connected bool
	// Since is when the stream began or ended. Zero: nothing was tried yet.
	Since  time.Time
	Broker string
	// Identity and StreamID are of the stream, where there is one.
	Identity Identity
	StreamID string
	// Err says why there is no stream; RetryTime is when one is tried again.
	Err       error
	RetryTime time.Time
	// Skew is how far this machine's clock is ahead of the broker's, in whole
	// seconds, as far as it is known.
	Skew time.Duration
	// Certificate is the one in the files; zero where it is in none.
	// CertificateErr says what is wrong with it; nil: all is well.
	Certificate    Certificate
	CertificateErr error
	// Grants are sorted by name.
	Grants []GrantStatus
}

// GrantStatus is the state of one grant.
type GrantStatus struct {
	Grant string
	// Credential is the last good one; its Expires is zero where there is none.
	Credential Credential
	// Err says why there is none, or why the broker cannot renew it; nil: all
	// is well.
	Err error
}

// Status gives the present state.
func (s *Source) Status() Status {
	s.mu.RLock()
	defer s.mu.RUnlock()
	status := Status{
		Connected: s.standing.Kind == EventConnected,
		Since:     s.standing.Time,
		Broker:    s.standing.Broker,
		Identity:  s.standing.Identity,
		StreamID:  s.standing.StreamID,
		Err:       s.standing.Err,
		RetryTime: s.standing.RetryTime,

		Certificate:    s.certificate.Certificate,
		CertificateErr: s.certificate.Err,
	}
	if !s.clock.server.IsZero() {
		status.Skew = s.clock.skew()
	}
	for _, name := range s.names() {
		grant := GrantStatus{Grant: name}
		c, err := s.lookup(name)
		if err != nil {
			grant.Err = err
		} else if entry := s.supplies[name]; entry.problem != nil {
			grant.Credential, grant.Err = c, entry.problem.Err
		} else {
			grant.Credential = c
		}
		status.Grants = append(status.Grants, grant)
	}
	return status
}
