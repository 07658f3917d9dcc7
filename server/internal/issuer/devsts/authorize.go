package devsts

import "net/http"

// authorize says whether the caller may make the call at all, by what AWS
// forbids to sessions whatever their policies say. It is the one place that is
// asked for every authenticated call, after its faults and before it is done:
// inline policies of users and roles are to be evaluated here.
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
	return nil
}

// accessDenied names the caller and the action, as AWS does.
func accessDenied(c *call) error {
	return refuse(http.StatusForbidden, "AccessDenied", "User: %s is not authorized to perform: sts:%s", c.caller.arn, c.action)
}
