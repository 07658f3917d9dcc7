package adminapi_test

import (
	"testing"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/reason"
)

// Which buckets are one: by endpoint, because the objects are the same, or by
// account, because one STS vouches for all buckets of that name.
func TestSameBucket(t *testing.T) {
	c := start(t, nil)
	c.tenant(t, "acme")
	c.tenant(t, "borg")
	at := func(name, account, endpoint string) {
		c.location(t, name, func(l *stokerv1.Location) { l.Account, l.Endpoint = account, endpoint })
	}
	at("aws", "main", "")
	at("minio", "main", "http://minio.internal")
	at("minio-short", "short", "http://MINIO.internal:80/")
	at("minio-tls", "short", "https://minio.internal")
	at("aws-short", "short", "https://s3.eu-central-1.amazonaws.com")
	at("elsewhere", "short", "http://elsewhere.internal:9000")
	c.location(t, "other-bucket", func(l *stokerv1.Location) { l.Bucket = "other" })
	for name, pair := range map[string]struct {
		one, two string
		same     bool
	}{
		"itself":                       {"aws", "aws", true},
		"one account, two endpoints":   {"aws", "minio", true},
		"one endpoint written twice":   {"minio", "minio-short", true},
		"two ports, two accounts":      {"minio", "minio-tls", false},
		"AWS written out":              {"aws", "aws-short", true},
		"two endpoints, two accounts":  {"aws", "elsewhere", false},
		"two buckets, one account":     {"aws", "other-bucket", false},
		"two ports, one account":       {"minio-short", "minio-tls", true},
		"AWS and a server, both short": {"aws-short", "elsewhere", true},
	} {
		t.Run(name, func(t *testing.T) {
			one := c.grant(t, "acme", "one", func(g *stokerv1.Grant) { g.Location, g.Prefix = pair.one, "shared/" })
			defer func() {
				must(c.grants.DeleteGrant(t.Context(), &stokerv1.DeleteGrantRequest{Tenant: "acme", Name: one.GetName()}))(t)
			}()
			_, err := c.grants.CreateGrant(t.Context(), &stokerv1.CreateGrantRequest{
				Grant: newGrant("borg", "two", func(g *stokerv1.Grant) { g.Location, g.Prefix = pair.two, "shared/two/" }),
			})
			if pair.same {
				refused(t, err, reason.InvalidRequest, `grant "one" of tenant "acme" in the same bucket`)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			must(c.grants.DeleteGrant(t.Context(), &stokerv1.DeleteGrantRequest{Tenant: "borg", Name: "two"}))(t)
		})
	}
}

// A disabled grant counts: it can be enabled at any time. One's own tenant does
// not.
func TestWhoseGrantsOverlap(t *testing.T) {
	c := start(t, nil)
	c.populate(t)
	c.grant(t, "acme", "restore", func(g *stokerv1.Grant) { g.Prefix, g.Access = "acme/photos/", stokerv1.Access_ACCESS_RESTORE })
	c.grant(t, "acme", "off", func(g *stokerv1.Grant) { g.Prefix, g.Disabled = "off/", true })
	_, err := c.grants.CreateGrant(t.Context(), &stokerv1.CreateGrantRequest{Grant: newGrant("borg", "x", func(g *stokerv1.Grant) { g.Prefix = "off/" })})
	refused(t, err, reason.InvalidRequest, `grant "off" of tenant "acme"`)
	// Not the slash, but the letters: a sibling.
	c.grant(t, "borg", "sibling", func(g *stokerv1.Grant) { g.Prefix = "acme/photos-of-borg/" })
}

// A location changes only to what all its grants work with.
func TestLocationUpdatesAreRefused(t *testing.T) {
	c := start(t, nil)
	c.populate(t)
	c.location(t, "other", func(l *stokerv1.Location) {
		l.Bucket, l.Account, l.Endpoint = "other", "short", "https://s3.example.com"
	})
	c.grant(t, "borg", "around", func(g *stokerv1.Grant) { g.Location, g.Prefix = "other", "acme/" })
	for name, change := range map[string]struct {
		path   string
		change func(*stokerv1.Location)
		says   string
	}{
		"a shorter account":   {"account", func(l *stokerv1.Location) { l.Account = "short" }, `grant "photos" of tenant "acme" would not work any more: grant.lifetime`},
		"an unknown account":  {"account", func(l *stokerv1.Location) { l.Account = "none" }, "location.account"},
		"a key of elsewhere":  {"kms_key_arn", func(l *stokerv1.Location) { l.KmsKeyArn = "arn:aws:kms:eu-west-1:123456789012:key/a" }, "location.region"},
		"no bucket":           {"bucket", func(l *stokerv1.Location) { l.Bucket = "" }, "location.bucket"},
		"a bad endpoint":      {"endpoint", func(l *stokerv1.Location) { l.Endpoint = "x" }, "location.endpoint"},
		"a bad region":        {"region", func(l *stokerv1.Location) { l.Region = "" }, "location.region"},
		"into another's keys": {"", func(l *stokerv1.Location) { l.Bucket, l.Endpoint = "other", "https://s3.example.com" }, `grant "around" of tenant "borg"`},
	} {
		t.Run(name, func(t *testing.T) {
			l := &stokerv1.Location{Name: "frankfurt", Account: "main", Bucket: "backups", Region: "eu-central-1"}
			change.change(l)
			r := &stokerv1.UpdateLocationRequest{Location: l}
			if change.path != "" {
				r.UpdateMask = &fieldmaskpb.FieldMask{Paths: []string{change.path}}
			}
			_, err := c.locations.UpdateLocation(t.Context(), r)
			refused(t, err, reason.InvalidRequest, change.says)
		})
	}
	must(c.locations.UpdateLocation(t.Context(), &stokerv1.UpdateLocationRequest{
		Location:   &stokerv1.Location{Name: "frankfurt", KmsKeyArn: "arn:aws:kms:eu-central-1:123456789012:key/a"},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"kms_key_arn"}},
	}))(t)
}
