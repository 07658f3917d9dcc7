// Package message writes the domain values that several services of the API
// send, so that they look the same everywhere. It decides nothing, and only the
// API packages use it.
package message

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/lease"
	"github.com/stokerd/stoker/server/internal/storage"
)

// Credential is where secret keys leave the broker: to the agent or service
// that the credential was issued to.
func Credential(c *lease.Credential) *stokerv1.Credential {
	return &stokerv1.Credential{
		Id:              c.ID,
		Grant:           c.Grant,
		AccessKeyId:     c.AccessKeyID,
		SecretAccessKey: c.SecretAccessKey.Reveal(),
		SessionToken:    c.SessionToken.Reveal(),
		IssueTime:       Time(c.IssuedAt),
		ExpireTime:      Time(c.Expires),
		Target:          Target(c.Location, c.Prefix),
		Access:          Access(c.Access),
	}
}

// Target is where a grant leads.
func Target(l storage.Location, prefix string) *stokerv1.Target {
	return &stokerv1.Target{Bucket: l.Bucket, Prefix: prefix, Region: l.Region, Endpoint: l.Endpoint, KmsKeyArn: l.KMSKeyARN}
}

// accesses are the stored names by the API's values.
var accesses = map[stokerv1.Access]string{
	stokerv1.Access_ACCESS_BACKUP:   "backup",
	stokerv1.Access_ACCESS_RESTORE:  "restore",
	stokerv1.Access_ACCESS_MAINTAIN: "maintain",
	stokerv1.Access_ACCESS_ACTIONS:  "actions",
}

// Access is a stored access in the API; unspecified where it is unknown.
func Access(name string) stokerv1.Access {
	for value, n := range accesses {
		if n == name {
			return value
		}
	}
	return stokerv1.Access_ACCESS_UNSPECIFIED
}

// AccessName is the stored name of an access, or "" where it is none.
func AccessName(a stokerv1.Access) string { return accesses[a] }

// Identity is who the broker takes a caller for.
func Identity(p authn.Principal) *stokerv1.Identity {
	return &stokerv1.Identity{
		SpiffeId:              p.Certificate.ID,
		CertificateSerial:     p.Certificate.Serial,
		CertificateExpireTime: Time(p.Certificate.NotAfter),
		Tenant:                p.Tenant,
		Agent:                 p.Agent,
		Login:                 p.Login,
		SessionId:             p.SessionID,
		SessionExpireTime:     Time(p.SessionExpires),
	}
}

// Time is a time in the API: unset where it is zero.
func Time(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
