package rotation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/smithy-go"

	"github.com/stokerd/stoker/server/internal/awsiam"
	"github.com/stokerd/stoker/server/internal/secret"
)

// KeyInfo is what IAM tells of a user's key.
type KeyInfo struct {
	ID      string
	Active  bool
	Created time.Time
}

// IAM keeps a user's keys. Its errors hold no secret.
type IAM interface {
	List(ctx context.Context, user string) ([]KeyInfo, error)
	// Create makes a key. ErrTwoKeys: the user has two.
	Create(ctx context.Context, user string) (id string, value secret.String, err error)
	// SetActive enables or disables a key; to disable one that is gone is no
	// error.
	SetActive(ctx context.Context, user, id string, active bool) error
	// Delete deletes a key; one that is gone is no error.
	Delete(ctx context.Context, user, id string) error
	// Used says whether the key has ever been used.
	Used(ctx context.Context, id string) (bool, error)
}

// ErrTwoKeys says that an IAM user has as many keys as it may.
var ErrTwoKeys = errors.New("the IAM user has two access keys, and no more are possible")

// AWS is the IAM of an account by its API.
type AWS struct{ client *awsiam.Client }

var _ IAM = AWS{}

// NewAWS makes the IAM that the client reaches.
func NewAWS(client *awsiam.Client) AWS { return AWS{client} }

// List implements IAM. A user has two keys at most, which one page holds.
func (a AWS) List(ctx context.Context, user string) ([]KeyInfo, error) {
	out, err := a.client.ListAccessKeys(ctx, &iam.ListAccessKeysInput{UserName: aws.String(user)})
	if err != nil {
		return nil, explain("iam:ListAccessKeys", err)
	}
	var keys []KeyInfo
	for _, k := range out.AccessKeyMetadata {
		keys = append(keys, KeyInfo{ID: aws.ToString(k.AccessKeyId), Active: k.Status == types.StatusTypeActive, Created: aws.ToTime(k.CreateDate)})
	}
	return keys, nil
}

// Create implements IAM.
func (a AWS) Create(ctx context.Context, user string) (string, secret.String, error) {
	out, err := a.client.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: aws.String(user)})
	if _, full := errors.AsType[*types.LimitExceededException](err); full {
		return "", secret.String{}, ErrTwoKeys
	}
	if err != nil {
		return "", secret.String{}, explain("iam:CreateAccessKey", err)
	}
	id, value := aws.ToString(out.AccessKey.AccessKeyId), aws.ToString(out.AccessKey.SecretAccessKey)
	if id == "" || value == "" {
		return "", secret.String{}, errors.New("iam:CreateAccessKey: the answer has no key")
	}
	return id, secret.New(value), nil
}

// SetActive implements IAM.
func (a AWS) SetActive(ctx context.Context, user, id string, active bool) error {
	status := types.StatusTypeInactive
	if active {
		status = types.StatusTypeActive
	}
	_, err := a.client.UpdateAccessKey(ctx, &iam.UpdateAccessKeyInput{UserName: aws.String(user), AccessKeyId: aws.String(id), Status: status})
	if _, gone := errors.AsType[*types.NoSuchEntityException](err); gone && !active {
		return nil
	}
	return explain("iam:UpdateAccessKey", err)
}

// Delete implements IAM.
func (a AWS) Delete(ctx context.Context, user, id string) error {
	_, err := a.client.DeleteAccessKey(ctx, &iam.DeleteAccessKeyInput{UserName: aws.String(user), AccessKeyId: aws.String(id)})
	if _, gone := errors.AsType[*types.NoSuchEntityException](err); gone {
		return nil
	}
	return explain("iam:DeleteAccessKey", err)
}

// Used implements IAM.
func (a AWS) Used(ctx context.Context, id string) (bool, error) {
	out, err := a.client.GetAccessKeyLastUsed(ctx, &iam.GetAccessKeyLastUsedInput{AccessKeyId: aws.String(id)})
	if err != nil {
		return false, explain("iam:GetAccessKeyLastUsed", err)
	}
	return out.AccessKeyLastUsed != nil && out.AccessKeyLastUsed.LastUsedDate != nil, nil
}

// maxMessage bounds what is told of IAM's answer, in characters.
const maxMessage = 300

// explain names the action that failed, which is what a policy has to allow.
// The answer to CreateAccessKey may hold a key where it could not be read, so
// that nothing but IAM's own error is told.
func explain(action string, err error) error {
	if err == nil {
		return nil
	}
	if api, ok := errors.AsType[smithy.APIError](err); ok && api.ErrorCode() != "UnknownError" {
		message := []rune(api.ErrorMessage())
		return fmt.Errorf("%s: %s: %s", action, api.ErrorCode(), string(message[:min(len(message), maxMessage)]))
	}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: no answer in time", action)
	default:
		return fmt.Errorf("%s: IAM cannot be reached, or its answer was not understood", action)
	}
}
