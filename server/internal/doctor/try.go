package doctor

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/google/uuid"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/entitlement"
	"github.com/stokerd/stoker/server/internal/issuer"
	"github.com/stokerd/stoker/server/internal/policy"
	"github.com/stokerd/stoker/server/internal/storage"
)

// nearlyFull is the share of the STS's space for policy and tags, in percent,
// from which on a longer name may be too long.
const nearlyFull = 90

// Try has a credential issued for a grant of the tenant, the way an agent's is,
// and tries it: it must list what the grant opens, and nothing beside that. The
// record says who asked; it is durable before the STS is called. The error says
// that it could not be written, or is the context's.
func (d *Doctor) Try(ctx context.Context, record storage.AuditRecord, tenant storage.Tenant, g storage.Grant) ([]Finding, error) {
	r := &report{}
	subject := "grant " + tenant.Name + "/" + g.Name
	l, ok := d.Directory.Location(g.LocationID)
	if !ok {
		r.add(Fatal, subject, "its location does not exist: correct the grant")
		return r.findings, nil
	}
	account, ok := d.Accounts[l.Account]
	if !ok {
		r.add(Fatal, subject, "its location names the account %q, which the configuration does not have: correct one of them", l.Account)
		return r.findings, nil
	}
	if tenant.Disabled || g.Disabled {
		r.add(Note, subject, "the tenant or the grant is disabled: agents get nothing for it")
	}
	document, err := policy.Build(entitlement.Scope(g, l))
	if err != nil {
		r.add(Fatal, subject, "no session policy can be made of it: %v", err)
		return r.findings, nil
	}
	request, err := request(account, tenant, g, document)
	if err != nil {
		return nil, err
	}
	record.Event = string(audit.AccountTried)
	record.TenantID, record.Tenant, record.GrantID, record.Grant = tenant.ID, tenant.Name, g.ID, g.Name
	record.Account, record.SessionName, record.PolicyHash = l.Account, request.SessionName, document.Hash()
	record.Expires = time.Now().Add(account.Lifetime)
	if _, err := d.Trail.Append(ctx, record, audit.NoFence); err != nil {
		return nil, err
	}
	issued, err := account.Issuer.Issue(ctx, request)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		r.add(Fatal, subject, "the STS issues nothing for it: %s", explain(err))
		return r.findings, nil
	}
	size(r, subject, document, issued)
	s3, ok := service(l, account.Endpoint)
	if !ok {
		r.add(Note, subject, "is not tried on the bucket: its location names no endpoint, and the account's STS is not AWS")
		return r.findings, nil
	}
	t := trial{report: r, subject: subject, buckets: d.buckets, s3: s3, location: l, prefix: g.Prefix, keys: aws.Credentials{
		AccessKeyID: issued.AccessKeyID, SecretAccessKey: issued.SecretAccessKey.Reveal(), SessionToken: issued.SessionToken.Reveal(),
	}}
	if !document.Allows("s3:ListBucket", g.Prefix).Allowed || t.own(ctx) {
		t.foreign(ctx)
	}
	return r.findings, ctx.Err()
}

// request is as large as an agent's: the size that the STS tells is that of a
// real one.
func request(account Account, tenant storage.Tenant, g storage.Grant, document policy.Document) (issuer.Request, error) {
	random := make([]byte, 8)
	if _, err := rand.Read(random); err != nil {
		return issuer.Request{}, err
	}
	nobody, err := uuid.NewV7()
	if err != nil {
		return issuer.Request{}, err
	}
	return issuer.Request{
		SessionName: "stoker-try-" + hex.EncodeToString(random), Policy: document.String(), Duration: account.Lifetime,
		Tags: []issuer.Tag{
			{Key: "tenant", Value: tenant.ID}, {Key: "user", Value: nobody.String()},
			{Key: "agent", Value: nobody.String()}, {Key: "grant", Value: g.ID},
		},
	}, nil
}

// explain adds what to do about refusals that the broker's rights cause.
func explain(err error) string {
	text := err.Error()
	if failure, ok := errors.AsType[*issuer.Error](err); ok {
		text = failure.Code + ": " + failure.Message
		if failure.Code == "AccessDenied" && strings.Contains(failure.Message, "sts:TagSession") {
			text += "; allow sts:TagSession, see docs/aws.md"
		}
	}
	return text
}

func size(r *report, subject string, document policy.Document, issued issuer.Credential) {
	switch packed := issued.PackedPolicySize; {
	case packed == 0:
		r.add(OK, subject, "the STS issues for it: a policy of %d characters of %d; this STS does not tell the packed size",
			document.Length(), policy.MaxDocumentLength)
	case packed >= nearlyFull:
		r.add(Warning, subject, "policy and tags take %d %% of the STS's space: a longer prefix or bucket name may be refused", packed)
	default:
		r.add(OK, subject, "the STS issues for it: a policy of %d characters of %d, which takes %d %% of the STS's space with its tags",
			document.Length(), policy.MaxDocumentLength, packed)
	}
}

// trial is a credential that is tried on its bucket.
type trial struct {
	*report
	subject  string
	buckets  *buckets
	s3       string
	location storage.Location
	prefix   string
	keys     aws.Credentials
}

// own lists what the grant opens, and says whether there is more to try.
func (t trial) own(ctx context.Context) bool {
	err := t.buckets.list(ctx, t.s3, t.location, t.keys, t.prefix)
	switch {
	case err == nil:
		t.add(OK, t.subject, "its credential lists the keys under %q", t.prefix)
		return true
	case code(err) == "AccessDenied":
		t.add(Fatal, t.subject, "its credential may not list %q although the session policy allows it: give the role or user s3:ListBucket on %s, see docs/aws.md",
			t.prefix, t.location.Bucket)
	case code(err) != "":
		t.add(Fatal, t.subject, "its credential cannot list %q in the bucket %s: %v", t.prefix, t.location.Bucket, err)
	default:
		t.add(Warning, t.subject, "its credential cannot be tried on the bucket: %v", err)
	}
	return false
}

// foreign lists what the credential must not reach: the whole bucket, and a
// neighbor whose name begins in the same way.
func (t trial) foreign(ctx context.Context) {
	for _, other := range []string{"", strings.TrimSuffix(t.prefix, "/") + "-stoker-try/"} {
		what := "the whole bucket"
		if other != "" {
			what = "the foreign prefix " + strconv.Quote(other)
		}
		err := t.buckets.list(ctx, t.s3, t.location, t.keys, other)
		switch {
		case err == nil:
			t.add(Fatal, t.subject, "its credential lists %s, which its session policy does not allow: the bucket's policy or ACL opens it", what)
			return
		case code(err) != "AccessDenied":
			t.add(Warning, t.subject, "whether its credential lists %s cannot be found out: %v", what, err)
			return
		}
	}
	t.add(OK, t.subject, "its credential lists nothing outside of %q", t.prefix)
}
