package devsts

import (
	"encoding/xml"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"
)

// AWS's limits on inline policies, from the IAM quotas. White space does not
// count, and all inline policies of one user or role share the limit.
const (
	maxUserInline   = 2_048
	maxRoleInline   = 10_240
	maxInlineChars  = 131_072 // of one document, as sent
	maxPolicyNames  = 1_000   // of one list's page
	policyNamesPage = 100
)

// iamService is the part of IAM that keeps the inline policies of users and
// roles, and the access keys of users. Its version and namespace are those of the IAM API reference.
var iamService = service{
	name:      "iam",
	version:   "2010-05-08",
	namespace: "https://iam.amazonaws.com/doc/2010-05-08/",
	operations: map[string]operation{
		"PutUserPolicy":    ofUser.put,
		"GetUserPolicy":    ofUser.get,
		"DeleteUserPolicy": ofUser.remove,
		"ListUserPolicies": ofUser.list,
		"PutRolePolicy":    ofRole.put,
		"GetRolePolicy":    ofRole.get,
		"DeleteRolePolicy": ofRole.remove,
		"ListRolePolicies": ofRole.list,

		"ListAccessKeys":       (*STS).listAccessKeys,
		"CreateAccessKey":      (*STS).createAccessKey,
		"UpdateAccessKey":      (*STS).updateAccessKey,
		"DeleteAccessKey":      (*STS).deleteAccessKey,
		"GetAccessKeyLastUsed": (*STS).getAccessKeyLastUsed,
	},
}

// holder is a sort of identity that has inline policies.
type holder struct {
	noun      string // for messages, and in the keys of STS.inline
	parameter string // names the holder in a call
	longest   int    // name, in characters
	limit     int
	known     func(*STS, string) bool
}

var (
	ofUser = holder{noun: "user", parameter: "UserName", longest: 128, limit: maxUserInline, known: (*STS).hasUser}
	ofRole = holder{noun: "role", parameter: "RoleName", longest: 64, limit: maxRoleInline, known: (*STS).hasRole}

	iamNamePattern = pattern(`[\w+=,.@-]+`)
)

func (s *STS) hasUser(name string) bool {
	for _, u := range s.config.Users {
		if !u.Root && u.Name == name {
			return true
		}
	}
	return false
}

func (s *STS) hasRole(name string) bool {
	_, ok := s.roles[name]
	return ok
}

// inlinePolicy is a policy as it was put.
type inlinePolicy struct {
	text       string
	statements []statement
}

// size is what counts against the limit.
func (p inlinePolicy) size() int {
	n := 0
	for _, r := range p.text {
		if !unicode.IsSpace(r) {
			n++
		}
	}
	return n
}

type (
	getUserPolicyResult struct {
		XMLName        xml.Name `xml:"GetUserPolicyResult"`
		UserName       string
		PolicyName     string
		PolicyDocument string // percent-encoded
	}
	getRolePolicyResult struct {
		XMLName        xml.Name `xml:"GetRolePolicyResult"`
		RoleName       string
		PolicyName     string
		PolicyDocument string // percent-encoded
	}
	listPoliciesResult struct {
		XMLName     xml.Name
		PolicyNames []string `xml:"PolicyNames>member"`
		IsTruncated bool
		Marker      string `xml:",omitempty"`
	}
)

// iamName reads the required name of a user, role or policy.
func iamName(v *violations, p *parameters, parameter string, longest int) string {
	field := strings.ToLower(parameter[:1]) + parameter[1:]
	name, given := p.text(parameter)
	if !given {
		v.add("", field, "Member must not be null")
		return ""
	}
	v.length(name, field, 1, longest)
	v.match(name, field, iamNamePattern)
	return name
}

// find gives the key of the holder that the call names.
func (h holder) find(s *STS, name string) (string, error) {
	if !h.known(s, name) {
		return "", refuse(http.StatusNotFound, "NoSuchEntity", "The %s with name %s cannot be found.", h.noun, clip(name))
	}
	return h.noun + "/" + name, nil
}

// both reads the names of a call on one policy, and refuses other parameters.
func (h holder) both(s *STS, c *call, v *violations) (key, name, policy string, err error) {
	name = iamName(v, c.parameters, h.parameter, h.longest)
	policy = iamName(v, c.parameters, "PolicyName", 128)
	if err := c.parameters.rest(); err != nil {
		return "", "", "", err
	}
	if err := v.err(); err != nil {
		return "", "", "", err
	}
	key, err = h.find(s, name)
	return key, name, policy, err
}

func (h holder) put(s *STS, c *call) (any, error) {
	var v violations
	document, given := c.parameters.text("PolicyDocument")
	if !given {
		v.add("", "policyDocument", "Member must not be null")
	} else {
		v.length(document, "policyDocument", 1, maxInlineChars)
		v.match(document, "policyDocument", policyPattern)
	}
	key, name, policy, err := h.both(s, c, &v)
	if err != nil {
		return nil, err
	}
	if err := checkPolicy(document); err != nil {
		return nil, err
	}
	made := inlinePolicy{text: document}
	if made.statements, err = readPolicy(document); err != nil {
		return nil, refuse(http.StatusNotImplemented, "NotImplemented", "The policy is valid, but %s.", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	size := made.size()
	for other, p := range s.inline[key] {
		if other != policy {
			size += p.size()
		}
	}
	if size > h.limit {
		return nil, refuse(http.StatusConflict, "LimitExceeded", "Maximum policy size of %d bytes exceeded for %s %s", h.limit, h.noun, name)
	}
	if s.inline[key] == nil {
		s.inline[key] = map[string]inlinePolicy{}
	}
	s.inline[key][policy] = made
	return nil, nil
}

func (h holder) get(s *STS, c *call) (any, error) {
	var v violations
	key, name, policy, err := h.both(s, c, &v)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	found, ok := s.inline[key][policy]
	s.mu.Unlock()
	if !ok {
		return nil, h.noPolicy(policy)
	}
	// AWS percent-encodes as RFC 3986 says, where a space is %20.
	encoded := strings.ReplaceAll(url.QueryEscape(found.text), "+", "%20")
	if h.noun == ofUser.noun {
		return getUserPolicyResult{UserName: name, PolicyName: policy, PolicyDocument: encoded}, nil
	}
	return getRolePolicyResult{RoleName: name, PolicyName: policy, PolicyDocument: encoded}, nil
}

func (h holder) noPolicy(policy string) error {
	return refuse(http.StatusNotFound, "NoSuchEntity", "The %s policy with name %s cannot be found.", h.noun, clip(policy))
}

func (h holder) remove(s *STS, c *call) (any, error) {
	var v violations
	key, _, policy, err := h.both(s, c, &v)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.inline[key][policy]; !ok {
		return nil, h.noPolicy(policy)
	}
	delete(s.inline[key], policy)
	return nil, nil
}

// list gives the names in order. The marker is the last name of the page
// before.
func (h holder) list(s *STS, c *call) (any, error) {
	var v violations
	name := iamName(&v, c.parameters, h.parameter, h.longest)
	most, err := c.parameters.number("MaxItems", policyNamesPage)
	if err != nil {
		return nil, err
	}
	v.between(most, "maxItems", 1, maxPolicyNames)
	marker, _ := c.parameters.text("Marker")
	if err := c.parameters.rest(); err != nil {
		return nil, err
	}
	if err := v.err(); err != nil {
		return nil, err
	}
	key, err := h.find(s, name)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	names := slices.Sorted(maps.Keys(s.inline[key]))
	s.mu.Unlock()
	names = slices.DeleteFunc(names, func(n string) bool { return n <= marker })
	result := listPoliciesResult{XMLName: xml.Name{Local: c.action + "Result"}, PolicyNames: names}
	if len(names) > most {
		result.PolicyNames, result.IsTruncated, result.Marker = names[:most], true, names[most-1]
	}
	return result, nil
}

// InlinePolicy gives the text of a user's or role's inline policy, by the ARN
// of the user or role; "" where there is none.
func (s *STS) InlinePolicy(arn, policy string) string {
	key, _ := strings.CutPrefix(arn, fmt.Sprintf("arn:aws:iam::%s:", s.config.AccountID))
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inline[key][policy].text
}

// inlineStatements are those of all inline policies that bind the caller: a
// federated user's are the ones of the user who asked for the session.
func (s *STS) inlineStatements(p *principal) []statement {
	key := ""
	switch p.kind {
	case roleSession:
		key = "role/" + p.session.Role
	case federatedUser:
		_, key, _ = strings.Cut(p.session.Caller, s.config.AccountID+":")
	case iamUser:
		_, key, _ = strings.Cut(p.arn, s.config.AccountID+":")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var statements []statement
	for _, policy := range s.inline[key] {
		statements = append(statements, policy.statements...)
	}
	return statements
}

// keys are the condition keys that every request of the caller has.
func (s *STS) keys(c *call) map[string]string {
	p := c.caller
	keys := map[string]string{
		keyUserID: p.userID, keyPrincipalARN: p.arn, keyAccount: s.config.AccountID,
		keyCurrentTime: c.now.Format(dateForm),
	}
	switch p.kind {
	case iamUser:
		keys[keyUsername] = p.arn[strings.LastIndexByte(p.arn, '/')+1:]
	case roleSession:
		keys[keyPrincipalARN] = s.roleARN(p.session.Role)
	}
	if p.session != nil {
		keys[keyIssueTime] = p.session.issued().Format(dateForm)
		for _, t := range p.session.Tags {
			keys[principalTag+strings.ToLower(t.Key)] = t.Value
		}
	}
	return keys
}

// target is the ARN that the call is about, or "*".
func (s *STS) target(c *call) string {
	switch {
	case c.action == "GetAccessKeyLastUsed":
		id, _ := c.parameters.text("AccessKeyId")
		return fmt.Sprintf("arn:aws:iam::%s:user/%s", s.config.AccountID, s.ownerOf(id))
	case c.service == iamService.name && (strings.Contains(c.action, "User") || strings.Contains(c.action, "AccessKey")):
		name, _ := c.parameters.text(ofUser.parameter)
		return fmt.Sprintf("arn:aws:iam::%s:user/%s", s.config.AccountID, name)
	case c.service == iamService.name:
		name, _ := c.parameters.text(ofRole.parameter)
		return s.roleARN(name)
	case c.action == "AssumeRole":
		arn, _ := c.parameters.text("RoleArn")
		return arn
	}
	return "*"
}

// dateForm is how AWS writes times in condition keys: whole seconds, in UTC.
const dateForm = "2006-01-02T15:04:05Z"
