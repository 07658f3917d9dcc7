package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/stokerd/stoker/server/internal/storage"
)

const (
	// maxBuckets bounds how many buckets' policies are read at a time, and
	// readers how many at once.
	maxBuckets = 200
	readers    = 8
	// policiesLimit bounds the reading of them all.
	policiesLimit = 25 * time.Second
)

// policies reads the policy of each bucket that a location names. The error is
// the context's.
func (d *Doctor) policies(ctx context.Context, r *report) error {
	type bucket struct{ account, endpoint, name string }
	seen := map[bucket]bool{}
	var chosen []storage.Location
	for _, l := range d.Directory.Locations() {
		if at := (bucket{l.Account, l.Endpoint, l.Bucket}); !seen[at] {
			seen[at] = true
			chosen = append(chosen, l)
		}
	}
	slices.SortFunc(chosen, func(a, b storage.Location) int { return strings.Compare(a.Bucket, b.Bucket) })
	if n := len(chosen); n > maxBuckets {
		r.add(Note, "buckets", "there are %d; the policies of the first %d are looked at", n, maxBuckets)
		chosen = chosen[:maxBuckets]
	}
	found := make([]report, len(chosen))
	limited, cancel := context.WithTimeout(ctx, policiesLimit)
	defer cancel()
	all, inner := errgroup.WithContext(limited)
	all.SetLimit(readers)
	var mu sync.Mutex
	keyless := map[string]bool{} // accounts whose missing keys were reported
	for i, l := range chosen {
		all.Go(func() error {
			if err := d.bucketPolicy(inner, &found[i], l); err != nil {
				mu.Lock()
				defer mu.Unlock()
				if !keyless[l.Account] {
					keyless[l.Account] = true
					found[i].add(Note, "account "+l.Account, "policies of its buckets are not looked at: %v", err)
				}
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		return err
	}
	for _, f := range found {
		r.findings = append(r.findings, f.findings...)
	}
	return ctx.Err()
}

// bucketPolicy judges one bucket's policy, as far as the broker's keys may read
// it: they need not.
func (d *Doctor) bucketPolicy(ctx context.Context, r *report, l storage.Location) error {
	subject := "bucket " + l.Bucket
	account, ok := d.Accounts[l.Account]
	if !ok {
		r.add(Fatal, "location "+l.Name, "names the account %q, which the configuration does not have: correct one of them", l.Account)
		return nil
	}
	s3, ok := service(l, account.Endpoint)
	if !ok {
		r.add(Note, subject, "is not looked at: the location %s names no endpoint, and its account's STS is not AWS", l.Name)
		return nil
	}
	keys, err := account.Keys.Retrieve(ctx)
	if err != nil {
		return errNoKeys
	}
	text, err := d.buckets.policy(ctx, s3, l, keys)
	switch code(err) {
	case "NoSuchBucketPolicy":
		r.add(OK, subject, "has no policy of its own")
		return nil
	case "NoSuchBucket":
		r.add(Fatal, subject, "does not exist in %s: correct the location %s", l.Region, l.Name)
		return nil
	case "AccessDenied":
		r.add(Note, subject, "its policy may not be read with the broker's keys (s3:GetBucketPolicy): see by hand that it names no session")
		return nil
	}
	if err != nil {
		r.add(Warning, subject, "its policy cannot be read: %v", err)
		return nil
	}
	problems, err := judge(text)
	if err != nil {
		r.add(Warning, subject, "its policy cannot be understood: %v", err)
		return nil
	}
	for _, p := range problems {
		r.add(Warning, subject, "%s", p)
	}
	if len(problems) == 0 {
		r.add(OK, subject, "its policy names no session and nobody at large")
	}
	return nil
}

// bucketPolicy is what is read of a bucket's policy.
type bucketPolicy struct {
	Statement many[statement]
}

type statement struct {
	Sid          string
	Effect       string
	Principal    principal
	NotPrincipal *principal
	Condition    map[string]map[string]many[any]
}

// judge says what in a bucket's policy adds to session policies. Rights that it
// gives to a session, by the session's name, come on top of what the session
// policy allows; those that it gives to the role or the user stay within it.
func judge(text []byte) (problems []string, err error) {
	var p bucketPolicy
	if err := json.Unmarshal(text, &p); err != nil {
		return nil, err
	}
	for i, s := range p.Statement {
		if s.Effect != "Allow" {
			continue
		}
		name := fmt.Sprintf("statement %d", i+1)
		if s.Sid != "" {
			name += fmt.Sprintf(" (%.64q)", s.Sid)
		}
		for _, problem := range s.problems() {
			problems = append(problems, name+" of its policy "+problem)
		}
	}
	return problems, nil
}

func (s statement) problems() (found []string) {
	if s.NotPrincipal != nil {
		found = append(found, "allows everybody whom it does not name: name those who are meant")
	}
	for _, who := range s.Principal {
		switch {
		case who == "*" && len(s.Condition) == 0:
			found = append(found, "allows everybody: whatever it allows, every tenant can do")
		case isSession(who):
			found = append(found, fmt.Sprintf("names the session %.160q, whose rights it adds to the session policy's: name the role or the user", who))
		}
	}
	for _, condition := range s.Condition {
		for key, values := range condition {
			key = strings.ToLower(key)
			for _, v := range values {
				text := fmt.Sprint(v)
				if key == "aws:userid" || key == "aws:principalarn" && isSession(text) {
					found = append(found, fmt.Sprintf("chooses by %s %.160q, which names sessions: their rights come on top of the session policy's", key, text))
				}
			}
		}
	}
	slices.Sort(found)
	return found
}

// isSession says whether an ARN, perhaps with wildcards, names a session.
func isSession(arn string) bool {
	return strings.Contains(arn, ":assumed-role/") || strings.Contains(arn, ":federated-user/")
}

// many is one value or a list of them, as IAM writes both.
type many[T any] []T

// UnmarshalJSON implements json.Unmarshaler.
func (m *many[T]) UnmarshalJSON(text []byte) error {
	var list []T
	if err := json.Unmarshal(text, &list); err == nil {
		*m = list
		return nil
	}
	var one T
	if err := json.Unmarshal(text, &one); err != nil {
		return err
	}
	*m = many[T]{one}
	return nil
}

// principal is "*", or ARNs and names of any kind.
type principal []string

// UnmarshalJSON implements json.Unmarshaler.
func (p *principal) UnmarshalJSON(text []byte) error {
	var all string
	if err := json.Unmarshal(text, &all); err == nil {
		*p = principal{all}
		return nil
	}
	var kinds map[string]many[string]
	if err := json.Unmarshal(text, &kinds); err != nil {
		return err
	}
	for _, names := range kinds {
		*p = append(*p, names...)
	}
	slices.Sort(*p)
	return nil
}
