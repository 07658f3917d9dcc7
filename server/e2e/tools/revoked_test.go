//go:build unix

package tools_test

import (
	"context"
	"regexp"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

// refusal is what a tool says that was refused, by S3 or by the endpoint.
var refusal = regexp.MustCompile(`AccessDenied|Access Denied|Forbidden|403|USER_DISABLED`)

const (
	// promptly is how long a tool may take to give up, once it has no more to do.
	promptly = 90 * time.Second
	// storm is more requests than a tool needs to learn that it may not.
	storm = 60
)

// A user is disabled in the middle, and the account's sessions are denied, as
// "revocation: apply" has AWS do it. Every tool fails, says that it was refused,
// and leaves S3 in peace.
func TestRevoked(t *testing.T) {
	t.Parallel()
	y := newYard(t, 15*time.Minute)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	c := y.hire(ctx, t, everyTool())
	c.work(ctx, t, "its first requests", worked(nil, 2))
	for _, login := range []string{"backup", "exec"} {
		_, err := stokerv1.NewUserServiceClient(y.Admin).UpdateUser(ctx, &stokerv1.UpdateUserRequest{
			User: &stokerv1.User{Tenant: "acme", Login: login, Disabled: true}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"disabled"}},
		})
		must(t, err)
	}
	y.minio.Admin(t, "admin", "policy", "detach", "root", "readwrite", "--user", y.minio.AccessKey)

	before, began := c.requests(), time.Now()
	portions := make(map[*job]int)
	for _, j := range c.jobs {
		portions[j] = j.portions
	}
	// Some notice at once, some when they have read all of their input.
	enough := began.Add(promptly / 6)
	c.work(ctx, t, "a refusal", func(j *job) bool {
		return j.over() || j.portions >= portions[j]+3 || time.Now().After(enough)
	})
	for _, j := range c.jobs {
		go j.finish(promptly)
	}
	for _, j := range c.jobs {
		<-j.ended
		after := j.tally().requests - before[j]
		t.Logf("%s ended after %v, after %d more requests", j.cell.name, j.at.Sub(began).Round(time.Second), after)
		switch {
		case j.killed:
			t.Errorf("%s went on: %s", j.cell.name, j.said())
		case j.err == nil || !refusal.MatchString(j.output.String()):
			t.Errorf("%s does not say that it was refused: %s", j.cell.name, j.said())
		case after > storm:
			t.Errorf("%s made %d requests to learn that it may not: %s", j.cell.name, after, j.said())
		}
	}
	documented(t, "revoked", spotList(t, c))
}
