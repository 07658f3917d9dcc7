package main

import (
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

type locationCommands struct {
	Create locationCreate `cmd:"" help:"Add a location."`
	Get    locationGet    `cmd:"" help:"Show one location."`
	List   locationList   `cmd:"" help:"List locations by name."`
	Update locationUpdate `cmd:"" help:"Change a location; agents get new credentials where that changes theirs."`
	Delete locationDelete `cmd:"" help:"Remove a location that no grant refers to."`
}

var locationColumns = append([]column[*stokerv1.Location]{
	{title: "LOCATION", value: (*stokerv1.Location).GetName},
	{title: "ACCOUNT", value: (*stokerv1.Location).GetAccount},
	{title: "BUCKET", value: (*stokerv1.Location).GetBucket},
	{title: "REGION", value: (*stokerv1.Location).GetRegion},
	{title: "ENDPOINT", value: func(l *stokerv1.Location) string { return orAWS(l.GetEndpoint()) }},
	{title: "KMS KEY", value: (*stokerv1.Location).GetKmsKeyArn, detail: true},
}, common[*stokerv1.Location]()...)

func orAWS(endpoint string) string {
	if endpoint == "" {
		return "AWS"
	}
	return endpoint
}

type locationCreate struct {
	Name      string `arg:"" help:"Up to 63 lower-case letters, digits and dashes."`
	Account   string `required:"" help:"An account of the broker's configuration."`
	Bucket    string `required:""`
	Region    string `required:"" help:"The bucket's AWS region."`
	Endpoint  string `placeholder:"URL" help:"URL of an S3-compatible service. Default: AWS."`
	KMSKeyARN string `name:"kms-key-arn" placeholder:"ARN" help:"The key of a bucket with SSE-KMS."`
}

func (c *locationCreate) Run(a *api) error {
	r, err := a.locations.CreateLocation(a.ctx, &stokerv1.CreateLocationRequest{Location: &stokerv1.Location{
		Name: c.Name, Account: c.Account, Bucket: c.Bucket, Region: c.Region, Endpoint: c.Endpoint, KmsKeyArn: c.KMSKeyARN,
	}})
	if err != nil {
		return err
	}
	return a.done(r.GetLocation(), "created location %s", c.Name)
}

type locationGet struct {
	Name string `arg:""`
}

func (c *locationGet) Run(a *api) error {
	r, err := a.locations.GetLocation(a.ctx, &stokerv1.GetLocationRequest{Name: c.Name})
	if err != nil {
		return err
	}
	return show(a.output, locationColumns, r.GetLocation())
}

type locationList struct{}

func (c *locationList) Run(a *api) error {
	found, err := a.allLocations()
	if err != nil {
		return err
	}
	return showList(a.output, locationColumns, found)
}

func (a *api) allLocations() ([]*stokerv1.Location, error) {
	return all(func(token string) ([]*stokerv1.Location, string, error) {
		r, err := a.locations.ListLocations(a.ctx, &stokerv1.ListLocationsRequest{PageSize: pageSize, PageToken: token})
		return r.GetLocations(), r.GetNextPageToken(), err
	})
}

type locationUpdate struct {
	Name      string  `arg:""`
	Account   *string `help:"An account of the broker's configuration."`
	Bucket    *string
	Region    *string `help:"The bucket's AWS region."`
	Endpoint  *string `placeholder:"URL" help:"URL of an S3-compatible service; '' for AWS."`
	KMSKeyARN *string `name:"kms-key-arn" placeholder:"ARN" help:"The key of a bucket with SSE-KMS; '' for none."`
	unchanged
}

func (c *locationUpdate) Run(a *api) error {
	var e edit
	l := &stokerv1.Location{
		Name: c.Name, Etag: c.Etag,
		Account: given(&e, "account", c.Account), Bucket: given(&e, "bucket", c.Bucket), Region: given(&e, "region", c.Region),
		Endpoint: given(&e, "endpoint", c.Endpoint), KmsKeyArn: given(&e, "kms_key_arn", c.KMSKeyARN),
	}
	mask, err := e.paths()
	if err != nil {
		return err
	}
	r, err := a.locations.UpdateLocation(a.ctx, &stokerv1.UpdateLocationRequest{Location: l, UpdateMask: mask})
	if err != nil {
		return err
	}
	return a.done(r.GetLocation(), "updated location %s", c.Name)
}

type locationDelete struct {
	Name string `arg:""`
	unchanged
}

func (c *locationDelete) Run(a *api) error {
	if err := a.confirm("delete location %s", c.Name); err != nil {
		return err
	}
	r, err := a.locations.DeleteLocation(a.ctx, &stokerv1.DeleteLocationRequest{Name: c.Name, Etag: c.Etag})
	if err != nil {
		return err
	}
	return a.done(r, "deleted location %s", c.Name)
}
