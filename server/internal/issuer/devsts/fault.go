package devsts

import (
	"fmt"
	"slices"
	"time"
)

// FaultKind is what goes wrong.
type FaultKind string

const (
	// Throttle answers HTTP 400 with code Throttling, as STS does.
	Throttle FaultKind = "throttle"
	// ServerError answers HTTP 500 with code InternalFailure.
	ServerError FaultKind = "server_error"
	// Unavailable answers HTTP 503 with code ServiceUnavailable.
	Unavailable FaultKind = "unavailable"
	// Deny answers HTTP 403 with code AccessDenied.
	Deny FaultKind = "deny"
	// Garble does the call and cuts its answer in the middle. The credential
	// exists, and Issued has it, but nobody ever held it.
	Garble FaultKind = "garble"
	// Drop closes the connection without an answer.
	Drop FaultKind = "drop"
	// Hang holds the call until its client leaves or the service closes.
	Hang FaultKind = "hang"
	// Delay does the call after Fault.Delay.
	Delay FaultKind = "delay"
	// SkewExpiry moves the expiry in the answer by Fault.Skew. The credential
	// itself lasts as long as was asked for.
	SkewExpiry FaultKind = "skew_expiry"
)

var faultKinds = []FaultKind{Throttle, ServerError, Unavailable, Deny, Garble, Drop, Hang, Delay, SkewExpiry}

// Fault makes authenticated calls fail. Each call meets the first injected
// fault that fits it, and no other.
type Fault struct {
	Kind FaultKind
	// Action is whose calls are met. Empty means every action's.
	Action string
	// Count is how many calls are met. Zero means all, until ClearFaults.
	Count int
	// Probability is how likely a fitting call is met, 0 to 1. Zero counts as
	// one.
	Probability float64
	// Delay is how long a call waits, for Delay.
	Delay time.Duration
	// Skew is by how much the expiry moves, for SkewExpiry.
	Skew time.Duration
	// RetryAfter is sent in whole seconds, for Throttle and Unavailable. Zero
	// sends none, as STS does.
	RetryAfter time.Duration
}

// Inject adds a fault behind those that are there. It refuses one that could
// not happen.
func (s *STS) Inject(f Fault) error {
	switch {
	case !slices.Contains(faultKinds, f.Kind):
		return fmt.Errorf("dev STS: fault %q is unknown: use one of %v", f.Kind, faultKinds)
	case f.Count < 0:
		return fmt.Errorf("dev STS: fault %s: count %d is negative", f.Kind, f.Count)
	case !(f.Probability >= 0 && f.Probability <= 1):
		return fmt.Errorf("dev STS: fault %s: probability %v is not between 0 and 1", f.Kind, f.Probability)
	case f.Kind == Delay && f.Delay <= 0:
		return fmt.Errorf("dev STS: fault %s needs a delay", f.Kind)
	case f.Kind == SkewExpiry && f.Skew == 0:
		return fmt.Errorf("dev STS: fault %s needs a skew", f.Kind)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, &f)
	return nil
}

// ClearFaults removes all faults. Calls that one of them holds stay held.
func (s *STS) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// takeFault gives the fault that the call meets, or nil.
func (s *STS) takeFault(action string) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, f := range s.faults {
		if f.Action != "" && f.Action != action {
			continue
		}
		if f.Probability > 0 && f.Probability < 1 && s.config.Random() >= f.Probability {
			continue
		}
		met := *f
		if f.Count > 0 {
			if f.Count--; f.Count == 0 {
				s.faults = slices.Delete(s.faults, i, i+1)
			}
		}
		return &met
	}
	return nil
}

// garble cuts the answer if that is the fault.
func (f *Fault) garble(answer []byte) []byte {
	if f == nil || f.Kind != Garble {
		return answer
	}
	return answer[:len(answer)/2]
}
