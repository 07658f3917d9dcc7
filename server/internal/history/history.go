package history

import "time"

// Party says whom something is about. In a cut-off empty fields stand for
// everybody.
type Party struct {
	Tenant, User, Agent, Grant string
	// Certificate is a serial number, Session and Credential are ids.
	Certificate, Session, Credential string
	// Password counts the user's passwords from 1: the login was made with this
	// one. In a cut-off it concerns the logins with an earlier one.
	Password int
}

// covers says whether a cut-off of c concerns p.
func (c Party) covers(p Party) bool {
	for _, field := range [][2]string{
		{c.Tenant, p.Tenant}, {c.User, p.User}, {c.Agent, p.Agent}, {c.Grant, p.Grant},
		{c.Certificate, p.Certificate}, {c.Session, p.Session}, {c.Credential, p.Credential},
	} {
		if field[0] != "" && field[0] != field[1] {
			return false
		}
	}
	return c.Password == 0 || p.Password > 0 && p.Password < c.Password
}

// Cut is one cut-off: by an operator, or by the agent that ends its session.
type Cut struct {
	Party
	What string
	// Acknowledged is when the answer had arrived.
	Acknowledged time.Time
	// Lifted is when the call began that took it back; zero: nobody did.
	Lifted time.Time
	// Ends says that the party's streams end; else they go on without it.
	Ends bool
	// Reasons are what its streams may be told.
	Reasons []string
}

// in says whether the cut-off was in force for all of the time from begin to
// end.
func (c Cut) in(begin, end time.Time) bool {
	return begin.After(c.Acknowledged) && (c.Lifted.IsZero() || end.Before(c.Lifted))
}

// Stream is one stream, as the agent saw it.
type Stream struct {
	Party
	ID int
	// Asked is when the agent opened it, Welcomed when the broker had answered
	// (zero: it never did), Ended when it was over.
	Asked, Welcomed, Ended time.Time
	// CertificateEnd is that of the certificate that it was opened with; zero:
	// not within the history.
	CertificateEnd time.Time
	// Reason is why: one of the API's, or another word.
	Reason string
	// Left says that the agent itself, or a stop of the broker, ended it.
	Left bool
}

// Received is one credential that an agent received.
type Received struct {
	Party
	// Stream is the stream's id; 0: it came by a call, which was begun at Asked.
	Stream int
	Asked  time.Time
	At     time.Time

	AccessKeyID     string
	Prefix          string
	Issued, Expires time.Time
	// CertificateEnd is that of the certificate that it was received with.
	CertificateEnd time.Time
}

// Recorded is one issue in the audit trail.
type Recorded struct {
	Party
	At          time.Time
	AccessKeyID string
	Expires     time.Time
}

// Issued is one credential that the STS gave out.
type Issued struct {
	AccessKeyID string
	At          time.Time
	Policy      string
}

// Terms are what a grant opened, between two changes of it: from when the one
// was acknowledged until the next began (zero: none did).
type Terms struct {
	Tenant, Grant, Prefix string
	From, Until           time.Time
}

// History is all that was seen. The clocks of all who saw it are one.
type History struct {
	Bucket   string
	Cuts     []Cut
	Streams  []Stream
	Received []Received
	Recorded []Recorded
	Issued   []Issued
	Terms    []Terms
	// Prompt is how long after its acknowledgement a cut-off may take to reach
	// an agent.
	Prompt time.Duration
	// Discarded is how many credentials the broker may have got from the STS
	// and dropped, because what they were for had changed meanwhile.
	Discarded int
}
