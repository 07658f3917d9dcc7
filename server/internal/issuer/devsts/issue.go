package devsts

import (
	"encoding/xml"
	"net/http"
	"slices"
	"strings"
	"time"
)

// credentials are those in an answer.
type credentials struct {
	AccessKeyID     string `xml:"AccessKeyId"`
	SecretAccessKey string
	SessionToken    string
	Expiration      string
}

// sizes are what an answer says about the space that was used. The packed
// size is absent where neither policy nor tags were passed.
type sizes struct {
	PackedPolicySize        *int
	SessionTokenSize        int
	SessionTokenUtilization int
}

type federationTokenResult struct {
	XMLName         xml.Name `xml:"GetFederationTokenResult"`
	Credentials     credentials
	FederatedUserID string `xml:"FederatedUser>FederatedUserId"`
	FederatedARN    string `xml:"FederatedUser>Arn"`
	sizes
}

type assumeRoleResult struct {
	XMLName        xml.Name `xml:"AssumeRoleResult"`
	AssumedRoleID  string   `xml:"AssumedRoleUser>AssumedRoleId"`
	AssumedARN     string   `xml:"AssumedRoleUser>Arn"`
	Credentials    credentials
	SourceIdentity string `xml:",omitempty"`
	sizes
}

type callerIdentityResult struct {
	XMLName xml.Name `xml:"GetCallerIdentityResult"`
	ARN     string   `xml:"Arn"`
	UserID  string   `xml:"UserId"`
	Account string
}

// getCallerIdentity answers for long-term keys and for sessions alike.
func (s *STS) getCallerIdentity(c *call) (any, error) {
	if err := c.parameters.rest(); err != nil {
		return nil, err
	}
	return callerIdentityResult{ARN: c.caller.arn, UserID: c.caller.userID, Account: s.config.AccountID}, nil
}

// getFederationToken issues a federated user's session.
func (s *STS) getFederationToken(c *call) (any, error) {
	var v violations
	p := c.parameters
	content := &session{Kind: federatedUser}
	content.Name = v.name(p, "Name", "name", 32)
	lifetime, tokenSize, err := s.common(&v, c, content, maxRoleLifetime, maxFederationLifetime)
	if err != nil {
		return nil, err
	}
	if c.caller.kind == rootUser {
		lifetime = min(lifetime, maxChained)
	}
	made, err := s.issue(c, content, lifetime, tokenSize)
	if err != nil {
		return nil, err
	}
	return federationTokenResult{
		Credentials: made.credentials, sizes: made.sizes,
		FederatedARN: made.identity.arn, FederatedUserID: made.identity.userID,
	}, nil
}

// assumeRole issues a role's session.
func (s *STS) assumeRole(c *call) (any, error) {
	var v violations
	p := c.parameters
	content := &session{Kind: roleSession}
	arn, given := p.text("RoleArn")
	if !given {
		v.add("", "roleArn", "Member must not be null")
	} else {
		v.length(arn, "roleArn", 20, 2048)
		v.match(arn, "roleArn", arnPattern)
	}
	content.Name = v.name(p, "RoleSessionName", "roleSessionName", 64)
	externalID, given := p.text("ExternalId")
	if given {
		v.length(externalID, "externalId", 2, 1224)
		v.match(externalID, "externalId", externalIDPattern)
	}
	if _, given := p.text("SourceIdentity"); given {
		content.SourceIdentity = v.name(p, "SourceIdentity", "sourceIdentity", 64)
	}
	lifetime, tokenSize, err := s.common(&v, c, content, time.Hour, maxRoleLifetime)
	if err != nil {
		return nil, err
	}
	role, err := s.assumable(c, arn, externalID)
	if err != nil {
		return nil, err
	}
	content.Role = role.Name
	if err := role.allows(lifetime, c.caller); err != nil {
		return nil, err
	}
	if err := content.inherit(c.caller.session); err != nil {
		return nil, err
	}
	made, err := s.issue(c, content, lifetime, tokenSize)
	if err != nil {
		return nil, err
	}
	return assumeRoleResult{
		Credentials: made.credentials, sizes: made.sizes, SourceIdentity: content.SourceIdentity,
		AssumedARN: made.identity.arn, AssumedRoleID: made.identity.userID,
	}, nil
}

// common reads the parameters that both operations have, then refuses those
// that nobody read and reports the violations found so far.
func (s *STS) common(v *violations, c *call, content *session, fallback, most time.Duration) (lifetime time.Duration, tokenSize int, err error) {
	p := c.parameters
	content.Policy = v.policy(p)
	if lifetime, err = v.lifetime(p, fallback, s.config.MinLifetime, most); err != nil {
		return 0, 0, err
	}
	if tokenSize, err = v.tokenSize(p); err != nil {
		return 0, 0, err
	}
	if content.Tags, err = v.tags(p); err != nil {
		return 0, 0, err
	}
	if content.Kind == roleSession {
		if content.Transitive, err = transitive(p, content.Tags); err != nil {
			return 0, 0, err
		}
	}
	if err := noManagedPolicies(p); err != nil {
		return 0, 0, err
	}
	if err := p.rest(); err != nil {
		return 0, 0, err
	}
	if err := v.err(); err != nil {
		return 0, 0, err
	}
	if content.Policy != "" {
		err = checkPolicy(content.Policy)
	}
	return lifetime, tokenSize, err
}

// assumable finds the role if the caller may assume it. An unknown role and a
// forbidden one get the same answer.
func (s *STS) assumable(c *call, arn, externalID string) (Role, error) {
	denied := refuse(http.StatusForbidden, "AccessDenied", "User: %s is not authorized to perform: sts:AssumeRole on resource: %s", c.caller.arn, clip(arn))
	role, known := s.roleByARN(arn)
	if !known || role.ExternalID != "" && role.ExternalID != externalID {
		return Role{}, denied
	}
	caller := c.caller.arn
	if c.caller.kind == roleSession {
		caller = s.roleARN(c.caller.session.Role)
	}
	if len(role.Trust) > 0 && !slices.Contains(role.Trust, caller) {
		return Role{}, denied
	}
	return role, nil
}

// allows checks the lifetime against the role's maximum and against that of
// role chaining.
func (r Role) allows(lifetime time.Duration, caller *principal) error {
	longest := r.MaxLifetime
	if longest == 0 {
		longest = time.Hour
	}
	if lifetime > longest {
		return refuse(http.StatusBadRequest, "ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	if caller.kind == roleSession && lifetime > maxChained {
		return refuse(http.StatusBadRequest, "ValidationError", "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.")
	}
	return nil
}

// inherit takes over what a role chain passes on: transitive tags and the
// source identity.
func (s *session) inherit(from *session) error {
	if from == nil {
		return nil
	}
	if from.SourceIdentity != "" {
		if s.SourceIdentity != "" && s.SourceIdentity != from.SourceIdentity {
			return refuse(http.StatusForbidden, "AccessDenied", "The source identity of a role chain cannot be changed.")
		}
		s.SourceIdentity = from.SourceIdentity
	}
	for _, t := range from.Tags {
		if !slices.ContainsFunc(from.Transitive, func(key string) bool { return strings.EqualFold(key, t.Key) }) {
			continue
		}
		if slices.ContainsFunc(s.Tags, func(own Tag) bool { return strings.EqualFold(own.Key, t.Key) }) {
			return refuse(http.StatusBadRequest, "InvalidParameterValue", "One of the specified transitive tag keys can't be set because it conflicts with a transitive tag key from the calling session.")
		}
		s.Tags = append(s.Tags, t)
		s.Transitive = append(s.Transitive, t.Key)
	}
	return nil
}

// made is an issued credential.
type made struct {
	credentials credentials
	sizes       sizes
	identity    *principal
}

// issue makes the session's credential and records it.
func (s *STS) issue(c *call, content *session, lifetime time.Duration, tokenSize int) (made, error) {
	percent, err := s.packedSize(content.Policy, content.Tags)
	if err != nil {
		return made{}, err
	}
	content.Caller = c.caller.arn
	content.IssuedUnix = c.now.Unix()
	content.ExpiresUnix = c.now.Add(lifetime).Unix()
	id := newAccessKeyID("ASIA")
	token, err := s.seal.token(id, content, tokenSize)
	if err != nil {
		return made{}, err
	}
	if len(token) > maxTokenSize {
		return made{}, tooLarge(len(token) * 100 / maxTokenSize)
	}
	identity := s.identity(content)
	shown := content.expires().Add(c.skew)
	s.record(Issued{
		RequestID: c.requestID, Action: c.action, AccessKeyID: id, Caller: content.Caller, ARN: identity.arn,
		Name: content.Name, Role: content.Role, Policy: content.Policy, Tags: content.Tags,
		SourceIdentity: content.SourceIdentity, IssuedAt: time.Unix(content.IssuedUnix, 0).UTC(), Expires: content.expires(),
		PackedPolicySize: percent,
	})
	m := made{
		credentials: credentials{
			AccessKeyID: id, SecretAccessKey: s.seal.secretKey(id), SessionToken: token,
			Expiration: shown.Format("2006-01-02T15:04:05Z"),
		},
		sizes:    sizes{SessionTokenSize: len(token), SessionTokenUtilization: len(token) * 100 / maxTokenSize},
		identity: identity,
	}
	if percent > 0 {
		m.sizes.PackedPolicySize = &percent
	}
	return m, nil
}

// packedSize gives how much of the space for policy and tags is used, in
// percent. AWS does not publish how it packs; this is compression against a
// limit at which the same policies fit or do not, more or less.
func (s *STS) packedSize(policy string, tags []Tag) (int, error) {
	if policy == "" && len(tags) == 0 {
		return 0, nil
	}
	var plain strings.Builder
	plain.WriteString(policy)
	for _, t := range tags {
		plain.WriteString("\x00" + t.Key + "\x00" + t.Value)
	}
	used := len(deflate([]byte(plain.String())))
	percent := (used*100 + s.config.PackedLimit - 1) / s.config.PackedLimit
	if percent > 100 {
		return 0, tooLarge(percent)
	}
	return percent, nil
}

func tooLarge(percent int) error {
	return refuse(http.StatusBadRequest, "PackedPolicyTooLarge", "Packed policy consumes %d%% of allotted space, please use smaller policy.", percent)
}
