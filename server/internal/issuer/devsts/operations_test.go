package devsts

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/google/go-cmp/cmp"

	"github.com/stokerd/stoker/server/internal/secret"
)

func whoAmI(t *testing.T, c *sts.Client) (arn, userID string) {
	t.Helper()
	out, err := c.GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	if err != nil {
		t.Fatal(err)
	}
	if *out.Account != DefaultAccountID {
		t.Errorf("account is %s", *out.Account)
	}
	return *out.Arn, *out.UserId
}

func TestGetFederationToken(t *testing.T) {
	var told []Issued
	var mu sync.Mutex
	f := start(t, func(c *Config) {
		c.OnIssue = func(i Issued) { mu.Lock(); told = append(told, i); mu.Unlock() }
	})
	before := time.Now().Add(-time.Second)
	out, err := f.client(f.user).GetFederationToken(t.Context(), &sts.GetFederationTokenInput{
		Name: aws.String("a=b,c.d@e-f_g"), Policy: aws.String(policy), DurationSeconds: aws.Int32(900),
		Tags: []types.Tag{{Key: aws.String("tenant"), Value: aws.String("änne")}, {Key: aws.String("user"), Value: aws.String("")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if left := out.Credentials.Expiration.Sub(before); left < 900*time.Second || left > 905*time.Second {
		t.Errorf("the session lasts %s", left)
	}
	if !strings.HasPrefix(*out.Credentials.AccessKeyId, "ASIA") || len(*out.Credentials.AccessKeyId) != 20 || len(*out.Credentials.SecretAccessKey) != 40 {
		t.Errorf("the key has not AWS's form: %s", *out.Credentials.AccessKeyId)
	}
	packed := aws.ToInt32(out.PackedPolicySize) //nolint:staticcheck // deprecated, and still sent
	if packed < 5 || packed > 30 {
		t.Errorf("packed size is %d", packed)
	}
	if *out.SessionTokenSize != int32(len(*out.Credentials.SessionToken)) || *out.SessionTokenUtilization > 100 {
		t.Errorf("token size is %d, utilization %d", *out.SessionTokenSize, *out.SessionTokenUtilization)
	}
	const arn, id = "arn:aws:sts::000000000000:federated-user/a=b,c.d@e-f_g", "000000000000:a=b,c.d@e-f_g"
	if *out.FederatedUser.Arn != arn || *out.FederatedUser.FederatedUserId != id {
		t.Errorf("federated user is %s, %s", *out.FederatedUser.Arn, *out.FederatedUser.FederatedUserId)
	}
	if gotARN, gotID := whoAmI(t, f.session(out.Credentials.AccessKeyId, out.Credentials.SecretAccessKey, out.Credentials.SessionToken)); gotARN != arn || gotID != id {
		t.Errorf("the session is %s, %s", gotARN, gotID)
	}
	issued := f.Issued()
	if len(issued) != 1 {
		t.Fatalf("%d credentials are remembered", len(issued))
	}
	want := Issued{
		RequestID: issued[0].RequestID, Action: "GetFederationToken", AccessKeyID: *out.Credentials.AccessKeyId,
		Caller: "arn:aws:iam::000000000000:user/broker", ARN: arn, Name: "a=b,c.d@e-f_g", Policy: policy,
		Tags:     []Tag{{"tenant", "änne"}, {"user", ""}},
		IssuedAt: out.Credentials.Expiration.Add(-900 * time.Second), Expires: *out.Credentials.Expiration,
		PackedPolicySize: int(packed),
	}
	if diff := cmp.Diff(want, issued[0]); diff != "" {
		t.Error(diff)
	}
	mu.Lock()
	defer mu.Unlock()
	if diff := cmp.Diff(issued, told); diff != "" {
		t.Errorf("OnIssue was told something else: %s", diff)
	}
}

func TestAssumeRole(t *testing.T) {
	f := start(t)
	out, err := f.client(f.user).AssumeRole(t.Context(), &sts.AssumeRoleInput{
		RoleArn: aws.String(roleARN), RoleSessionName: aws.String("session"), Policy: aws.String(policy),
		SourceIdentity: aws.String("ops"), Tags: []types.Tag{{Key: aws.String("tenant"), Value: aws.String("a")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	arn, id := whoAmI(t, f.session(out.Credentials.AccessKeyId, out.Credentials.SecretAccessKey, out.Credentials.SessionToken))
	if arn != *out.AssumedRoleUser.Arn || arn != "arn:aws:sts::000000000000:assumed-role/backup/session" {
		t.Errorf("ARN is %s, then %s", *out.AssumedRoleUser.Arn, arn)
	}
	if id != *out.AssumedRoleUser.AssumedRoleId || !strings.HasPrefix(id, "AROA") || !strings.HasSuffix(id, ":session") {
		t.Errorf("id is %s, then %s", *out.AssumedRoleUser.AssumedRoleId, id)
	}
	if *out.SourceIdentity != "ops" {
		t.Errorf("source identity is %s", *out.SourceIdentity)
	}
	if left := time.Until(*out.Credentials.Expiration); left < 3590*time.Second || left > time.Hour {
		t.Errorf("by default the session lasts %s", left)
	}
	if got := f.Issued()[0]; got.Role != "backup" || got.SourceIdentity != "ops" || got.Action != "AssumeRole" {
		t.Errorf("remembered is %+v", got)
	}
}

func TestIdentities(t *testing.T) {
	f := start(t)
	if arn, id := whoAmI(t, f.client(f.user)); arn != "arn:aws:iam::000000000000:user/broker" || !strings.HasPrefix(id, "AIDA") || len(id) != 21 {
		t.Errorf("the user is %s, %s", arn, id)
	}
	if arn, id := whoAmI(t, f.client(f.root)); arn != "arn:aws:iam::000000000000:root" || id != DefaultAccountID {
		t.Errorf("root is %s, %s", arn, id)
	}
}

// TestNoPolicy: a federated user without policy is issued, has no rights, and
// its answer has no packed size.
func TestNoPolicy(t *testing.T) {
	f := start(t)
	out, err := f.client(f.user).GetFederationToken(t.Context(), &sts.GetFederationTokenInput{Name: aws.String("nobody")})
	if err != nil {
		t.Fatal(err)
	}
	if packed := out.PackedPolicySize; packed != nil { //nolint:staticcheck // deprecated, and still sent
		t.Errorf("packed size is %d", *packed)
	}
	if left := time.Until(*out.Credentials.Expiration); left < 12*time.Hour-5*time.Second || left > 12*time.Hour {
		t.Errorf("by default the session lasts %s", left)
	}
}

func TestRootFederationIsCutToAnHour(t *testing.T) {
	f := start(t)
	out, err := f.client(f.root).GetFederationToken(t.Context(), &sts.GetFederationTokenInput{Name: aws.String("nobody"), DurationSeconds: aws.Int32(7200)})
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(*out.Credentials.Expiration); left > time.Hour {
		t.Errorf("the session lasts %s", left)
	}
}

func TestMinimumSessionTokenSize(t *testing.T) {
	f := start(t)
	for _, size := range []int32{1, 1000, 3999, 4096} {
		out, err := f.client(f.user).GetFederationToken(t.Context(), &sts.GetFederationTokenInput{
			Name: aws.String("nobody"), Policy: aws.String(policy), MinimumSessionTokenSize: aws.Int32(size),
		})
		if err != nil {
			t.Fatal(size, err)
		}
		if got := len(*out.Credentials.SessionToken); got < int(size) || got > maxTokenSize {
			t.Errorf("asked for %d bytes, the token has %d", size, got)
		}
		whoAmI(t, f.session(out.Credentials.AccessKeyId, out.Credentials.SecretAccessKey, out.Credentials.SessionToken))
	}
}

// TestSessionRestrictions: what AWS forbids to sessions, whatever their
// policies say.
func TestSessionRestrictions(t *testing.T) {
	f := start(t)
	federated, err := f.client(f.user).GetFederationToken(t.Context(), &sts.GetFederationTokenInput{Name: aws.String("fed"), Policy: aws.String(policy)})
	if err != nil {
		t.Fatal(err)
	}
	assumed, err := f.client(f.user).AssumeRole(t.Context(), &sts.AssumeRoleInput{RoleArn: aws.String(roleARN), RoleSessionName: aws.String("session")})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*types.Credentials{"federated": federated.Credentials, "assumed": assumed.Credentials} {
		_, err := f.session(c.AccessKeyId, c.SecretAccessKey, c.SessionToken).GetFederationToken(t.Context(),
			&sts.GetFederationTokenInput{Name: aws.String("again"), Policy: aws.String(policy)})
		wantCode(t, name+" GetFederationToken", err, "AccessDenied", http.StatusForbidden)
	}
	c := federated.Credentials
	_, err = f.session(c.AccessKeyId, c.SecretAccessKey, c.SessionToken).AssumeRole(t.Context(),
		&sts.AssumeRoleInput{RoleArn: aws.String(roleARN), RoleSessionName: aws.String("again")})
	wantCode(t, "federated AssumeRole", err, "AccessDenied", http.StatusForbidden)
	_, err = f.client(f.root).AssumeRole(t.Context(), &sts.AssumeRoleInput{RoleArn: aws.String(roleARN), RoleSessionName: aws.String("again")})
	wantCode(t, "root AssumeRole", err, "AccessDenied", http.StatusForbidden)
}

func TestRoleChaining(t *testing.T) {
	f := start(t)
	const next = "arn:aws:iam::000000000000:role/next"
	first, err := f.client(f.user).AssumeRole(t.Context(), &sts.AssumeRoleInput{
		RoleArn: aws.String(roleARN), RoleSessionName: aws.String("first"), SourceIdentity: aws.String("ops"),
		Tags: []types.Tag{{Key: aws.String("Tenant"), Value: aws.String("a")}, {Key: aws.String("user"), Value: aws.String("u")}}, TransitiveTagKeys: []string{"tenant"},
	})
	if err != nil {
		t.Fatal(err)
	}
	chained := f.session(first.Credentials.AccessKeyId, first.Credentials.SecretAccessKey, first.Credentials.SessionToken)
	in := func(change func(*sts.AssumeRoleInput)) *sts.AssumeRoleInput {
		i := &sts.AssumeRoleInput{RoleArn: aws.String(next), RoleSessionName: aws.String("second")}
		change(i)
		return i
	}
	if _, err := chained.AssumeRole(t.Context(), in(func(*sts.AssumeRoleInput) {})); err != nil {
		t.Fatal(err)
	}
	last := f.Issued()[1]
	if diff := cmp.Diff([]Tag{{"Tenant", "a"}}, last.Tags); diff != "" {
		t.Errorf("inherited tags: %s", diff)
	}
	if last.SourceIdentity != "ops" || last.Caller != "arn:aws:sts::000000000000:assumed-role/backup/first" {
		t.Errorf("source identity %s, caller %s", last.SourceIdentity, last.Caller)
	}
	_, err = chained.AssumeRole(t.Context(), in(func(i *sts.AssumeRoleInput) { i.DurationSeconds = aws.Int32(3601) }))
	wantCode(t, "over an hour", err, "ValidationError", http.StatusBadRequest)
	_, err = chained.AssumeRole(t.Context(), in(func(i *sts.AssumeRoleInput) {
		i.Tags = []types.Tag{{Key: aws.String("TENANT"), Value: aws.String("b")}}
	}))
	wantCode(t, "an inherited tag", err, "InvalidParameterValue", http.StatusBadRequest)
	_, err = chained.AssumeRole(t.Context(), in(func(i *sts.AssumeRoleInput) { i.SourceIdentity = aws.String("other") }))
	wantCode(t, "another source identity", err, "AccessDenied", http.StatusForbidden)
	_, err = f.client(f.user).AssumeRole(t.Context(), in(func(*sts.AssumeRoleInput) {}))
	wantCode(t, "a caller that the role does not trust", err, "AccessDenied", http.StatusForbidden)
}

// TestSessionsOutliveARestart: with the same seal another process knows the
// session, with another one it does not.
func TestSessionsOutliveARestart(t *testing.T) {
	sealed := func(seal string) func(*Config) {
		return func(c *Config) { c.Seal = secret.New(seal) }
	}
	first, same, other := start(t, sealed(strings.Repeat("a", 32))), start(t, sealed(strings.Repeat("a", 32))), start(t, sealed(strings.Repeat("b", 32)))
	out, err := first.client(first.user).GetFederationToken(t.Context(), &sts.GetFederationTokenInput{Name: aws.String("fed")})
	if err != nil {
		t.Fatal(err)
	}
	c := out.Credentials
	whoAmI(t, same.session(c.AccessKeyId, c.SecretAccessKey, c.SessionToken))
	_, err = other.session(c.AccessKeyId, c.SecretAccessKey, c.SessionToken).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	wantCode(t, "another seal", err, "InvalidClientTokenId", http.StatusForbidden)
}

func TestShorterMinimumLifetime(t *testing.T) {
	f := start(t, func(c *Config) { c.MinLifetime = 20 * time.Second })
	out, err := f.client(f.user).GetFederationToken(t.Context(), &sts.GetFederationTokenInput{Name: aws.String("fed"), DurationSeconds: aws.Int32(20)})
	if err != nil {
		t.Fatal(err)
	}
	c := f.session(out.Credentials.AccessKeyId, out.Credentials.SecretAccessKey, out.Credentials.SessionToken)
	whoAmI(t, c)
	f.ahead.Store(int64(21 * time.Second))
	_, err = c.GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	wantCode(t, "after its end", err, "ExpiredToken", http.StatusForbidden)
	_, err = f.client(f.user).GetFederationToken(t.Context(), &sts.GetFederationTokenInput{Name: aws.String("fed"), DurationSeconds: aws.Int32(19)})
	wantCode(t, "19 seconds", err, "ValidationError", http.StatusBadRequest)
}

func TestIssuedIsBounded(t *testing.T) {
	f := start(t, func(c *Config) { c.IssuedLimit = 3 })
	for _, name := range []string{"n1", "n2", "n3", "n4", "n5"} {
		if _, err := f.client(f.user).GetFederationToken(t.Context(), &sts.GetFederationTokenInput{Name: aws.String(name)}); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	for _, i := range f.Issued() {
		names = append(names, i.Name)
	}
	if diff := cmp.Diff([]string{"n3", "n4", "n5"}, names); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]int{"GetFederationToken": 5}, f.Calls()); diff != "" {
		t.Error(diff)
	}
}

func TestConcurrentCalls(t *testing.T) {
	f := start(t)
	client := f.client(f.user)
	ids := make(chan string, 32)
	var group sync.WaitGroup
	for range cap(ids) {
		group.Go(func() {
			out, err := client.AssumeRole(t.Context(), &sts.AssumeRoleInput{RoleArn: aws.String(roleARN), RoleSessionName: aws.String("session"), Policy: aws.String(policy)})
			if err != nil {
				t.Error(err)
				return
			}
			ids <- *out.Credentials.AccessKeyId
		})
	}
	group.Wait()
	close(ids)
	seen := map[string]bool{}
	for id := range ids {
		seen[id] = true
	}
	if len(seen) != 32 || f.Calls()["AssumeRole"] != 32 || len(f.Issued()) != 32 {
		t.Errorf("%d different keys, %d calls, %d remembered", len(seen), f.Calls()["AssumeRole"], len(f.Issued()))
	}
}
