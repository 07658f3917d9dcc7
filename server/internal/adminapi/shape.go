package adminapi

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/stokerd/stoker/server/internal/entitlement"
	"github.com/stokerd/stoker/server/internal/policy"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// shape has change run while no other change of locations and grants runs on
// this broker, with a directory that has all earlier ones. Whether two tenants'
// grants overlap is decided from other grants than the one that is written, so
// the store's revisions do not guard it. Against another replica's operators
// keepApart guards it after the write.
func (a *API) shape(ctx context.Context, change func() error) error {
	select {
	case a.shaping <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-a.shaping }()
	if err := a.sync(ctx); err != nil {
		return err
	}
	return change()
}

// keepApart looks for an overlap once more after a write, when the directory
// has every write that came before it: of two operators on two replicas at
// least one finds the other's here. Then undo takes the write back. Both may
// find each other, and both be refused: the safe side.
func (a *API) keepApart(ctx context.Context, l storage.Location, undo func(context.Context) error, grants ...storage.Grant) error {
	err := a.overlap(l, grants...)
	if err == nil {
		return nil
	}
	// The caller's hanging up must not leave the overlap standing.
	if failure := undo(context.WithoutCancel(ctx)); failure != nil {
		a.Log.ErrorContext(ctx, "two tenants' grants overlap and the later one could not be taken back; disable one of them",
			"problem", err.Message, "error", failure)
		return err.Because(failure)
	}
	return err
}

// overlap refuses grants at a location (as it is or is about to be) that share
// keys with another tenant's, whether or not either is disabled.
func (a *API) overlap(l storage.Location, grants ...storage.Grant) *reason.Error {
	for _, there := range a.Directory.Locations() {
		if there.ID == l.ID {
			there = l
		}
		if !sameBucket(there, l) {
			continue
		}
		others := a.Directory.GrantsAt(there.ID)
		for _, g := range grants {
			for _, o := range others {
				if o.TenantID == g.TenantID || !policy.Overlap(o.Prefix, g.Prefix) {
					continue
				}
				return a.overlapError(g, o)
			}
		}
	}
	return nil
}

func (a *API) overlapError(g, other storage.Grant) *reason.Error {
	t, ok := a.Directory.Tenant(other.TenantID)
	if !ok {
		t.Name = other.TenantID
	}
	return invalid("grant.prefix", "%q of grant %q has keys in common with %q of grant %q of tenant %q in the same bucket; choose a prefix that neither lies inside the other nor around it",
		g.Prefix, g.Name, other.Prefix, other.Name, t.Name).With("tenant", t.Name).With("grant", other.Name)
}

// sameBucket says whether a credential for the one location can reach the
// other's objects: the bucket has the same name, and either the endpoint is the
// same, so the objects are, or the account is, so that an STS which names
// buckets without their endpoint vouches for both.
func sameBucket(a, b storage.Location) bool {
	return a.Bucket == b.Bucket && (a.Account == b.Account || s3Service(a.Endpoint) == s3Service(b.Endpoint))
}

// s3Service tells S3 services apart by their endpoints. All of AWS is one:
// bucket names are unique there, and any of its endpoints reaches them.
func s3Service(endpoint string) string {
	u, err := url.Parse(endpoint)
	if endpoint == "" || err != nil {
		return endpoint
	}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	if strings.HasSuffix(host, ".amazonaws.com") || strings.HasSuffix(host, ".amazonaws.com.cn") {
		return ""
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return host + ":" + port
}

// checkPolicy refuses a grant that no session policy can be made of.
func checkPolicy(g storage.Grant, l storage.Location) error {
	_, err := policy.Build(entitlement.Scope(g, l))
	return policyError(err)
}

// policyError tells an operator all that is wrong, by the fields of the API.
func policyError(err error) error {
	if err == nil {
		return nil
	}
	problems := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		problems = joined.Unwrap()
	}
	var texts []string
	field := ""
	for _, problem := range problems {
		text := problem.Error()
		var scope *policy.ScopeError
		if errors.As(problem, &scope) {
			name := scopeField(scope.Field)
			text = name + " " + scope.Value + " " + scope.Problem
			if field == "" {
				field = name
			}
		}
		texts = append(texts, text)
	}
	refused := reason.New(reason.InvalidRequest, "%s", strings.Join(texts, "; ")).Because(err)
	if field != "" {
		refused = refused.With("field", field)
	}
	return refused
}

func scopeField(name string) string {
	switch name {
	case "bucket", "region", "kms_key_arn":
		return "location." + name
	case "partition":
		return "location.region"
	}
	return "grant." + name
}

// checkLifetime refuses a lifetime that the account does not issue.
func (a *API) checkLifetime(lifetime time.Duration, account string) error {
	limits, ok := a.Accounts[account]
	switch {
	case !ok:
		return invalid("grant.location", "is on account %q, which the broker's configuration does not have; correct the location's account", account)
	case lifetime < limits.MinLifetime || lifetime > limits.MaxLifetime:
		return invalid("grant.lifetime", "%s is outside of what account %q issues; give %s to %s", lifetime, account, limits.MinLifetime, limits.MaxLifetime)
	}
	return nil
}

// readLifetime reads a lifetime in whole seconds; unset means an hour, as far
// as the account allows.
func (a *API) readLifetime(d *durationpb.Duration, account string) (time.Duration, error) {
	if d == nil {
		limits := a.Accounts[account]
		return max(min(time.Hour, limits.MaxLifetime), limits.MinLifetime), nil
	}
	if err := d.CheckValid(); err != nil || d.GetNanos() != 0 {
		return 0, invalid("grant.lifetime", "is not a number of whole seconds")
	}
	return d.AsDuration(), nil
}
