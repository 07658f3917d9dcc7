package devsts

import (
	"fmt"
	"net/http"
)

// authorize says whether the caller may make the call at all. It is the one
// place that is asked for every authenticated call, after its faults and
// before it is done: what AWS forbids to sessions whatever their policies say,
// and what the inline policies of users and roles deny.
//
// Nothing has to be allowed: users and roles may do everything that nobody
// denies. What a session policy allows counts for S3 alone, see listObjects.
func (s *STS) authorize(c *call) error {
	switch {
	case c.action == "GetCallerIdentity":
		// Nobody is ever denied it.
		return nil
	case c.action == "GetFederationToken" && c.caller.session != nil:
		return refuse(http.StatusForbidden, "AccessDenied", "Cannot call GetFederationToken with session credentials")
	case c.action == "AssumeRole" && c.caller.kind == rootUser:
		return refuse(http.StatusForbidden, "AccessDenied", "Roles may not be assumed by root accounts.")
	case c.caller.kind == federatedUser:
		return accessDenied(c)
	}
	request := access{action: c.service + ":" + c.action, resource: s.target(c), keys: s.keys(c)}
	if denied(s.inlineStatements(c.caller), request) {
		return explicitlyDenied(c, request.resource)
	}
	return nil
}

// accessDenied names the caller and the action, as AWS does.
func accessDenied(c *call) error {
	return refuse(http.StatusForbidden, "AccessDenied", "%s", notAuthorized(c))
}

// explicitlyDenied is accessDenied for an inline policy.
func explicitlyDenied(c *call, resource string) error {
	return refuse(http.StatusForbidden, "AccessDenied", "%s on resource: %s with an explicit deny in an identity-based policy", notAuthorized(c), clip(resource))
}

func notAuthorized(c *call) string {
	return fmt.Sprintf("User: %s is not authorized to perform: %s:%s", c.caller.arn, c.service, c.action)
}
