package revocation

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/smithy-go"

	"github.com/stokerd/stoker/server/internal/awsiam"
)

const (
	// mostPolicies bounds how many inline policies are read. A role or user
	// with that many has no room for another.
	mostPolicies = 200
	// maxProblem bounds what a failure says, in characters.
	maxProblem = 400
)

// AWSConfig says how to reach the IAM of an account. Fields without a default
// are required.
type AWSConfig struct {
	awsiam.Config
	// RoleARN is the role that the account assumes; empty where it issues by
	// GetFederationToken, for the user that Caller names.
	RoleARN string
	// Caller gives the ARN of who has the keys.
	Caller func(ctx context.Context) (string, error)
}

// AWS is the IAM of an account by its API.
type AWS struct {
	config AWSConfig
	client *awsiam.Client
	// subject is found once; only the account's keeper asks.
	subject *subject
}

var _ IAM = (*AWS)(nil)

// subject is a role or a user.
type subject struct {
	noun, name string
	limit      int
}

func (s subject) String() string { return s.noun + " " + s.name }

// NewAWS makes the client. It calls nobody.
func NewAWS(c AWSConfig) *AWS { return &AWS{config: c, client: awsiam.New(c.Config)} }

// Close lets go of idle connections.
func (a *AWS) Close() { a.client.Close() }

// find finds out whose inline policies bind the account's sessions.
func (a *AWS) find(ctx context.Context) (subject, error) {
	if a.subject != nil {
		return *a.subject, nil
	}
	if _, err := a.config.Keys.Retrieve(ctx); err != nil {
		// Its text may be what a credential process printed.
		return subject{}, errors.New("the broker's own AWS keys cannot be had: see what the account's issuing says")
	}
	var found subject
	if a.config.RoleARN != "" {
		role, err := arn.Parse(a.config.RoleARN)
		name, ok := awsiam.Name("role", role)
		if err != nil || !ok {
			return subject{}, fmt.Errorf("%.200q is not the ARN of a role, so no inline policy of it can be written: set revocation to none or print", a.config.RoleARN)
		}
		if err := a.ownAccount(ctx, role.AccountID); err != nil {
			return subject{}, err
		}
		found = subject{"role", name, RoleLimit}
	} else {
		caller, err := a.config.Caller(ctx)
		if err != nil {
			return subject{}, fmt.Errorf("whose the broker's keys are is not known: %w", err)
		}
		user, err := arn.Parse(caller)
		name, ok := awsiam.Name("user", user)
		if err != nil || !ok {
			return subject{}, fmt.Errorf("the broker's keys are those of %.200q, which is no IAM user and has no inline policies: "+
				"use an IAM user's key, or set revocation to none or print", caller)
		}
		found = subject{"user", name, UserLimit}
	}
	a.subject = &found
	return found, nil
}

// ownAccount refuses a role that IAM would look for in vain: it is in another
// AWS account than the keys. Another IAM than AWS's may have no accounts.
func (a *AWS) ownAccount(ctx context.Context, accountID string) error {
	if a.config.Endpoint != "" {
		return nil
	}
	caller, err := a.config.Caller(ctx)
	if err != nil {
		return fmt.Errorf("whose the broker's keys are is not known: %w", err)
	}
	if own, err := arn.Parse(caller); err == nil && own.AccountID != accountID {
		return fmt.Errorf("the role is in AWS account %s and the broker's keys are in %s, from where no policy of the role can be written: set revocation to print and write it by other means",
			accountID, own.AccountID)
	}
	return nil
}

// Inline reads all inline policies.
func (a *AWS) Inline(ctx context.Context) (Inline, error) {
	s, err := a.find(ctx)
	if err != nil {
		return Inline{}, err
	}
	names, err := a.names(ctx, s)
	if err != nil {
		return Inline{}, s.explain("list the inline policies of", err)
	}
	in := Inline{Subject: s.String(), Limit: s.limit}
	for _, name := range names {
		document, err := a.document(ctx, s, name)
		switch {
		case code(err) == noSuchEntity:
			continue // deleted meanwhile
		case err != nil:
			return Inline{}, s.explain(fmt.Sprintf("read the inline policy %.128q of", name), err)
		case name == PolicyName:
			in.Document = document
		default:
			in.Others += weight(document)
		}
	}
	return in, nil
}

// names lists the inline policies.
func (a *AWS) names(ctx context.Context, s subject) (names []string, err error) {
	var marker *string
	for {
		var page []string
		var more bool
		if s.noun == "user" {
			var out *iam.ListUserPoliciesOutput
			if out, err = a.client.ListUserPolicies(ctx, &iam.ListUserPoliciesInput{UserName: &s.name, Marker: marker}); err == nil {
				page, more, marker = out.PolicyNames, out.IsTruncated, out.Marker
			}
		} else {
			var out *iam.ListRolePoliciesOutput
			if out, err = a.client.ListRolePolicies(ctx, &iam.ListRolePoliciesInput{RoleName: &s.name, Marker: marker}); err == nil {
				page, more, marker = out.PolicyNames, out.IsTruncated, out.Marker
			}
		}
		names = append(names, page...)
		switch {
		case err != nil:
			return nil, err
		case len(names) > mostPolicies:
			return nil, fmt.Errorf("there are more than %d", mostPolicies)
		case !more || marker == nil:
			return names, nil
		}
	}
}

// document reads one inline policy.
func (a *AWS) document(ctx context.Context, s subject, name string) (string, error) {
	var encoded *string
	if s.noun == "user" {
		out, err := a.client.GetUserPolicy(ctx, &iam.GetUserPolicyInput{UserName: &s.name, PolicyName: &name})
		if err != nil {
			return "", err
		}
		encoded = out.PolicyDocument
	} else {
		out, err := a.client.GetRolePolicy(ctx, &iam.GetRolePolicyInput{RoleName: &s.name, PolicyName: &name})
		if err != nil {
			return "", err
		}
		encoded = out.PolicyDocument
	}
	document, err := url.PathUnescape(aws.ToString(encoded))
	if err != nil {
		return "", errors.New("the answer is not percent-encoded, as IAM's are")
	}
	return document, nil
}

// weight is what counts against the limit.
func weight(document string) int {
	n := 0
	for _, r := range document {
		if !unicode.IsSpace(r) {
			n++
		}
	}
	return n
}

// Put writes the policy.
func (a *AWS) Put(ctx context.Context, document string) error {
	s, err := a.find(ctx)
	if err != nil {
		return err
	}
	if s.noun == "user" {
		_, err = a.client.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: &s.name, PolicyName: aws.String(PolicyName), PolicyDocument: &document})
	} else {
		_, err = a.client.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: &s.name, PolicyName: aws.String(PolicyName), PolicyDocument: &document})
	}
	return s.explain("write the inline policy "+PolicyName+" of", err)
}

// Delete removes the policy.
func (a *AWS) Delete(ctx context.Context) error {
	s, err := a.find(ctx)
	if err != nil {
		return err
	}
	if s.noun == "user" {
		_, err = a.client.DeleteUserPolicy(ctx, &iam.DeleteUserPolicyInput{UserName: &s.name, PolicyName: aws.String(PolicyName)})
	} else {
		_, err = a.client.DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: &s.name, PolicyName: aws.String(PolicyName)})
	}
	if code(err) == noSuchEntity {
		return nil
	}
	return s.explain("delete the inline policy "+PolicyName+" of", err)
}

const noSuchEntity = "NoSuchEntity"

// code is AWS's code of an error, if it has one.
func code(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	return ""
}

// safe are the codes whose messages are about names and sizes. Of others only
// the code is shown: a message about a signature repeats the request with what
// is secret in it.
var safe = []string{"AccessDenied", "AccessDeniedException", "LimitExceeded", "MalformedPolicyDocument", noSuchEntity, "ValidationError", "UnmodifiableEntity"}

// explain makes an error for people, the same each time. It is nil for nil.
func (s subject) explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	var cause string
	api, answered := errors.AsType[smithy.APIError](err)
	request, sent := errors.AsType[*url.Error](err)
	switch {
	case answered && slices.Contains(safe, api.ErrorCode()):
		cause = api.ErrorCode() + ": " + api.ErrorMessage()
	case answered && api.ErrorCode() != "UnknownError":
		cause = api.ErrorCode()
	case answered:
		cause = "what answers is no IAM"
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, context.DeadlineExceeded), sent && request.Timeout():
		cause = "no answer in time"
	case sent:
		cause = request.Err.Error()
	default:
		cause = "the answer is not one of IAM's"
	}
	return fmt.Errorf("cannot %s %s: %s", doing, s, line(cause))
}

// line keeps an answer from forging lines in a log.
func line(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if runes := []rune(text); len(runes) > maxProblem {
		text = string(runes[:maxProblem-1]) + "…"
	}
	return text
}
