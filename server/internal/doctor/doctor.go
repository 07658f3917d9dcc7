package doctor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"golang.org/x/sync/errgroup"

	"github.com/stokerd/stoker/server/internal/issuer"
	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/storage"
)

// Severity says what a finding means.
type Severity string

// The severities, from good to bad.
const (
	// OK: it was checked and is good.
	OK Severity = "ok"
	// Note: worth knowing, nothing to do.
	Note Severity = "note"
	// Warning: it looks wrong, or could not be found out.
	Warning Severity = "warning"
	// Fatal: something does not work, or is open that should not be.
	Fatal Severity = "fatal"
)

// Finding is one thing that was found.
type Finding struct {
	Severity Severity
	// Subject is what was checked, such as "account main".
	Subject string
	// Message is one line for operators, which says what to do where something
	// is to be done.
	Message string
}

// Condition is one thing without which nothing can be issued.
type Condition struct {
	Name string
	Test func(context.Context) error
}

// Account is one STS account.
type Account struct {
	Issuer issuer.Issuer
	// Check finds out what the account's keys are and can do.
	Check func(context.Context) ([]issuer.Finding, error)
	// Keys are the broker's own, for reading buckets' policies.
	Keys aws.CredentialsProvider
	// Endpoint is the STS's; empty: AWS.
	Endpoint string
	// Lifetime is how long a credential that is tried lives: the shortest that
	// the account issues.
	Lifetime time.Duration
}

// Directory is what is asked of the directory.
type Directory interface {
	Location(id string) (storage.Location, bool)
	Locations() []storage.Location
}

// Trail makes a record durable.
type Trail interface {
	Append(ctx context.Context, rec storage.AuditRecord, fence int64) (storage.AuditRecord, error)
}

// Config is what a Doctor needs: all of it, but Client.
type Config struct {
	Conditions   []Condition
	Certificates func() []pki.Status
	Accounts     map[string]Account
	Directory    Directory
	Trail        Trail
	// Client asks S3. Default: one of its own.
	Client *http.Client
}

// Doctor checks. Its methods are safe for concurrent use.
type Doctor struct {
	Config
	buckets *buckets
}

// New makes a Doctor.
func New(c Config) *Doctor {
	return &Doctor{Config: c, buckets: newBuckets(c.Client)}
}

const (
	// conditionLimit bounds the test of one condition.
	conditionLimit = 5 * time.Second
	// soon is how close to its end a certificate is worth a warning; one that
	// the built-in authority made is replaced before.
	soon = 54 * time.Hour
)

// Examine checks storage, certificates, accounts and buckets. The error is the
// context's alone.
func (d *Doctor) Examine(ctx context.Context) ([]Finding, error) {
	r := &report{}
	for _, c := range d.Conditions {
		d.condition(ctx, r, c)
	}
	for _, s := range d.Certificates() {
		certificate(r, s, time.Now())
	}
	if err := d.accounts(ctx, r); err != nil {
		return nil, err
	}
	if err := d.policies(ctx, r); err != nil {
		return nil, err
	}
	return r.findings, nil
}

// accounts asks all accounts at once: those that are away take their time.
func (d *Doctor) accounts(ctx context.Context, r *report) error {
	names := slices.Sorted(maps.Keys(d.Accounts))
	found := make([]report, len(names))
	all, inner := errgroup.WithContext(ctx)
	all.SetLimit(readers)
	for i, name := range names {
		all.Go(func() error { return d.account(inner, &found[i], name) })
	}
	if err := all.Wait(); err != nil {
		return err
	}
	for _, f := range found {
		r.findings = append(r.findings, f.findings...)
	}
	return nil
}

// report gathers findings.
type report struct{ findings []Finding }

func (r *report) add(s Severity, subject, format string, args ...any) {
	r.findings = append(r.findings, Finding{s, subject, fmt.Sprintf(format, args...)})
}

func (d *Doctor) condition(ctx context.Context, r *report, c Condition) {
	limited, cancel := context.WithTimeout(ctx, conditionLimit)
	defer cancel()
	if err := c.Test(limited); err != nil {
		r.add(Fatal, c.Name, "does not work, so nothing is issued: %v", err)
		return
	}
	r.add(OK, c.Name, "works")
}

func certificate(r *report, s pki.Status, now time.Time) {
	left := s.Expires.Sub(now).Round(time.Minute)
	switch {
	case s.Err != nil:
		r.add(Warning, s.Name, "%v", s.Err)
	case s.Expires.IsZero():
	case left < 0:
		r.add(Fatal, s.Name, "the earliest ended on %s: replace its file", s.Expires.UTC().Format(time.RFC3339))
	case left < soon:
		r.add(Warning, s.Name, "the earliest ends in %s, on %s: replace its file", left, s.Expires.UTC().Format(time.RFC3339))
	default:
		r.add(OK, s.Name, "in force until %s", s.Expires.UTC().Format(time.RFC3339))
	}
	if !s.NextUpdate.IsZero() && s.Err == nil {
		r.add(OK, s.Name, "the revocation list is due for the next on %s", s.NextUpdate.UTC().Format(time.RFC3339))
	}
}

// account passes on what the account's own check finds.
func (d *Doctor) account(ctx context.Context, r *report, name string) error {
	findings, err := d.Accounts[name].Check(ctx)
	if err != nil {
		return err
	}
	subject, worst := "account "+name, Note
	for _, f := range findings {
		severity := map[issuer.Severity]Severity{issuer.Fatal: Fatal, issuer.Warning: Warning}[f.Severity]
		if severity == "" {
			severity = Note
		} else {
			worst = severity
		}
		// The log needs the account's name in the line, a list does not.
		r.add(severity, subject, "%s", strings.TrimPrefix(f.Message, fmt.Sprintf("account %q: ", name)))
	}
	if worst == Note {
		r.add(OK, subject, "nothing speaks against its keys; whether they may issue shows when a grant is tried")
	}
	return nil
}

// errNoKeys stands for keys that cannot be had; why is the account's finding.
var errNoKeys = errors.New("the account's keys cannot be had")
