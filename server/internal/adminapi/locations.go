package adminapi

import (
	"context"
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/message"
	"github.com/stokerd/stoker/server/internal/policy"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

type locations struct {
	stokerv1.UnsafeLocationServiceServer
	*API
}

func (a *API) locationKind() kind[storage.Location] {
	return kind[storage.Location]{
		noun:  "location",
		meta:  func(l *storage.Location) *storage.Meta { return &l.Meta },
		name:  func(l storage.Location) string { return l.Name },
		about: func(l storage.Location, r *storage.AuditRecord) { r.Account = l.Account },
		values: func(l storage.Location) map[string]string {
			return map[string]string{
				"account": l.Account, "bucket": l.Bucket, "region": l.Region,
				"endpoint": l.Endpoint, "kms_key_arn": l.KMSKeyARN,
			}
		},
		get: a.Store.GetLocation, create: a.Store.CreateLocation, update: a.Store.UpdateLocation, remove: a.Store.DeleteLocation,
	}
}

// findLocation looks a location up in a directory that was synced.
func (a *API) findLocation(field, name string) (storage.Location, error) {
	if err := nameForm.check(field, name); err != nil {
		return storage.Location{}, err
	}
	l, ok := a.Directory.LocationByName(name)
	if !ok {
		return l, unknown("location", name)
	}
	return l, nil
}

func (s locations) find(ctx context.Context, field, name string) (storage.Location, error) {
	if err := s.sync(ctx); err != nil {
		return storage.Location{}, err
	}
	return s.findLocation(field, name)
}

func (s locations) message(l storage.Location) *stokerv1.Location {
	return &stokerv1.Location{
		Name: l.Name, Account: l.Account, Bucket: l.Bucket, Region: l.Region, Endpoint: l.Endpoint, KmsKeyArn: l.KMSKeyARN,
		Id: l.ID, Etag: s.locationKind().etag(l), CreateTime: message.Time(l.CreatedAt), UpdateTime: message.Time(l.UpdatedAt),
	}
}

// check refuses a location on which no grant could work.
func (s locations) check(l storage.Location) error {
	if _, ok := s.Accounts[l.Account]; !ok {
		return invalid("location.account", "%.70q is not in the broker's configuration; use one of %s",
			l.Account, strings.Join(slices.Sorted(maps.Keys(s.Accounts)), ", "))
	}
	if err := regionForm.check("location.region", l.Region); err != nil {
		return err
	}
	if err := checkEndpoint(l.Endpoint); err != nil {
		return err
	}
	// Any grant at all has to fit; which prefix makes no difference here.
	return checkPolicy(storage.Grant{Prefix: "tenant/", Access: string(policy.AccessBackup)}, l)
}

func checkEndpoint(endpoint string) error {
	const field = "location.endpoint"
	if endpoint == "" {
		return nil
	}
	if len(endpoint) > maxEndpoint {
		return invalid(field, "has %d characters; at most %d", len(endpoint), maxEndpoint)
	}
	u, err := url.Parse(endpoint)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return invalid(field, "%q is no http or https URL; give one such as https://s3.example.com", endpoint)
	case u.User != nil:
		// Not repeated: it may hold a password.
		return invalid(field, "holds a user; leave it out")
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.Fragment != "", u.ForceQuery:
		return invalid(field, "%q has more than scheme, host and port; leave the rest out", endpoint)
	}
	return nil
}

// CreateLocation implements stokerv1.LocationServiceServer.
func (s locations) CreateLocation(ctx context.Context, r *stokerv1.CreateLocationRequest) (*stokerv1.CreateLocationResponse, error) {
	given := r.GetLocation()
	if given == nil {
		return nil, invalid("location", "is missing")
	}
	if err := nameForm.check("location.name", given.GetName()); err != nil {
		return nil, err
	}
	l := storage.Location{
		Name: given.GetName(), Account: given.GetAccount(), Bucket: given.GetBucket(), Region: given.GetRegion(),
		Endpoint: given.GetEndpoint(), KMSKeyARN: given.GetKmsKeyArn(),
	}
	if err := s.check(l); err != nil {
		return nil, err
	}
	l, err := create(ctx, s.API, s.locationKind(), l)
	if err != nil {
		return nil, err
	}
	return &stokerv1.CreateLocationResponse{Location: s.message(l)}, nil
}

// GetLocation implements stokerv1.LocationServiceServer.
func (s locations) GetLocation(ctx context.Context, r *stokerv1.GetLocationRequest) (*stokerv1.GetLocationResponse, error) {
	l, err := s.find(ctx, "name", r.GetName())
	if err != nil {
		return nil, err
	}
	return &stokerv1.GetLocationResponse{Location: s.message(l)}, nil
}

// ListLocations implements stokerv1.LocationServiceServer.
func (s locations) ListLocations(ctx context.Context, r *stokerv1.ListLocationsRequest) (*stokerv1.ListLocationsResponse, error) {
	found, next, err := readPage(ctx, s.API, list{"locations"}, page{r.GetPageSize(), r.GetPageToken()},
		s.Store.ListLocations, s.locationKind().name, sure(s.message))
	if err != nil {
		return nil, err
	}
	return &stokerv1.ListLocationsResponse{Locations: found, NextPageToken: next}, nil
}

// UpdateLocation implements stokerv1.LocationServiceServer.
func (s locations) UpdateLocation(ctx context.Context, r *stokerv1.UpdateLocationRequest) (*stokerv1.UpdateLocationResponse, error) {
	given := r.GetLocation()
	if given == nil {
		return nil, invalid("location", "is missing")
	}
	chosen, err := readMask(r.GetUpdateMask(), "account", "bucket", "region", "endpoint", "kms_key_arn")
	if err != nil {
		return nil, err
	}
	if err := nameForm.check("location.name", given.GetName()); err != nil {
		return nil, err
	}
	var l storage.Location
	err = s.shape(ctx, func() error {
		known, err := s.findLocation("location.name", given.GetName())
		if err != nil {
			return err
		}
		l, err = s.change(ctx, known, given.GetEtag(), func(l storage.Location) storage.Location {
			take(chosen, "account", &l.Account, given.GetAccount())
			take(chosen, "bucket", &l.Bucket, given.GetBucket())
			take(chosen, "region", &l.Region, given.GetRegion())
			take(chosen, "endpoint", &l.Endpoint, given.GetEndpoint())
			take(chosen, "kms_key_arn", &l.KMSKeyARN, given.GetKmsKeyArn())
			return l
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return &stokerv1.UpdateLocationResponse{Location: s.message(l)}, nil
}

// change updates a location whose grants all still work at the new one.
func (s locations) change(ctx context.Context, known storage.Location, etag string, edit func(storage.Location) storage.Location) (storage.Location, error) {
	k := s.locationKind()
	var before storage.Location
	l, err := update(ctx, s.API, k, known, etag, func(l storage.Location) (storage.Location, error) {
		before = l
		l = edit(l)
		if l == before {
			return l, nil
		}
		if err := s.check(l); err != nil {
			return l, err
		}
		return l, s.checkGrants(l)
	})
	if err != nil {
		return l, err
	}
	return l, s.keepApart(ctx, l, func(ctx context.Context) error {
		_, err := update(ctx, s.API, k, l, k.etag(l), func(now storage.Location) (storage.Location, error) {
			before.Meta = now.Meta
			return before, nil
		})
		return err
	}, s.Directory.GrantsAt(l.ID)...)
}

// checkGrants refuses a location at which one of its grants would not work.
func (s locations) checkGrants(l storage.Location) error {
	grants := s.Directory.GrantsAt(l.ID)
	for _, g := range grants {
		err := checkPolicy(g, l)
		if err == nil {
			err = s.checkLifetime(g.Lifetime, l.Account)
		}
		if err == nil {
			continue
		}
		t, _ := s.Directory.Tenant(g.TenantID)
		var refused *reason.Error
		if errors.As(err, &refused) {
			return reason.New(refused.Reason, "grant %q of tenant %q would not work any more: %s", g.Name, t.Name, refused.Message).
				With("tenant", t.Name).With("grant", g.Name).Because(err)
		}
		return err
	}
	if err := s.overlap(l, grants...); err != nil {
		return err
	}
	return nil
}

// DeleteLocation implements stokerv1.LocationServiceServer.
func (s locations) DeleteLocation(ctx context.Context, r *stokerv1.DeleteLocationRequest) (*stokerv1.DeleteLocationResponse, error) {
	known, err := s.find(ctx, "name", r.GetName())
	if err != nil {
		return nil, err
	}
	if len(s.Directory.GrantsAt(known.ID)) > 0 {
		// Found here before anything is recorded; the store would refuse it too.
		return nil, s.locationKind().explain(known, storage.ErrInUse)
	}
	if err := remove(ctx, s.API, s.locationKind(), known, r.GetEtag()); err != nil {
		return nil, err
	}
	return &stokerv1.DeleteLocationResponse{}, nil
}
