package stream

import (
	"errors"

	"github.com/stokerd/stoker/server/internal/lease"
	"github.com/stokerd/stoker/server/internal/reason"
)

// apply notes the acknowledgement. One of a credential that has been replaced
// since, or was never sent, means nothing.
func (m Acknowledge) apply(s *Stream) error {
	if !validID(m.CredentialID) {
		return reason.New(reason.InvalidRequest, "acknowledge.credential_id: not a credential's id")
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	for _, e := range s.entries {
		s.mu.Lock()
		has := e.supply != nil && e.credentialID == m.CredentialID
		if has {
			e.acknowledged = s.registry.Now().Round(0)
		}
		s.mu.Unlock()
		if has {
			e.supply.subscription.Acknowledge(m.CredentialID)
			return nil
		}
	}
	return nil
}

// apply asks the lease for a replacement. If there will be none the agent is
// told why, and the stream goes on.
func (m ReportRefused) apply(s *Stream) error {
	switch {
	case !validID(m.CredentialID):
		return reason.New(reason.InvalidRequest, "report_refused.credential_id: not a credential's id")
	case !readable(m.ErrorCode, maxErrorCode):
		return reason.New(reason.InvalidRequest, "report_refused.error_code: at most %d printable characters", maxErrorCode)
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	for _, e := range s.entries {
		if e.supply == nil {
			continue
		}
		err := e.supply.subscription.Refused(m.CredentialID, m.ErrorCode)
		var why *reason.Error
		switch {
		case err == nil:
			return nil
		case !errors.As(err, &why):
			return err
		case why.Reason != reason.CredentialUnknown:
			s.file(e, lease.Event{Problem: s.declined(e, why)})
			return nil
		}
	}
	s.complain(reason.New(reason.CredentialUnknown, "report_refused.credential_id: this stream has no such credential").
		With("credential_id", m.CredentialID))
	return nil
}

// declined is the problem of a report that brought no replacement.
func (s *Stream) declined(e *entry, err *reason.Error) *lease.Problem {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &lease.Problem{GrantID: e.supply.grantID, Grant: e.name, Err: err, GoodUntil: e.expires}
	if err.RetryAfter > 0 {
		p.RetryAt = s.registry.Now().Add(err.RetryAfter).Round(0)
	}
	return p
}
