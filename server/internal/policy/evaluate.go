package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Decision is what a policy says to one request.
type Decision struct {
	Allowed bool
	// Statement is the index in Statements of the statement that allows, or -1.
	Statement int
	// Reason is one line for people.
	Reason string
}

// request is what the evaluator sees: an action on a resource, and the request's
// values for condition keys.
type request struct {
	action   string
	resource string
	values   map[string]string
}

// Allows says whether the policy lets action be done. For actions on objects,
// key is the object's key; for s3:ListBucket and s3:ListBucketVersions it is
// the prefix asked for, where empty means a request without one; for actions
// on the bucket's settings and for KMS actions it must be empty. KMS actions
// are judged as S3 makes them for the caller; called directly they are denied.
//
// It evaluates Build's own documents, which only ever allow. The rights that
// the account itself has, bucket policies and key policies are not considered:
// a session has what all of them allow together.
func (d Document) Allows(action, key string) Decision {
	if d.IsZero() {
		return denied("there is no policy")
	}
	names := func(st Statement) bool { return slices.ContainsFunc(st.Actions, equalAction(action)) }
	if !slices.ContainsFunc(d.statements, names) {
		return denied("no statement names " + quote(action))
	}
	r, problem := d.requestFor(action, key)
	if problem != "" {
		return denied(problem)
	}
	for i, st := range d.statements {
		if st.allows(r) {
			return Decision{Allowed: true, Statement: i, Reason: "allowed to " + st.Purpose}
		}
	}
	if key == "" {
		return denied(action + " is allowed, but not without a prefix")
	}
	return denied(fmt.Sprintf("%s is allowed, but not for %s", action, quote(key)))
}

func denied(reason string) Decision { return Decision{Statement: -1, Reason: reason} }

// equalAction compares as IAM does, without regard to case.
func equalAction(action string) func(string) bool {
	return func(name string) bool { return strings.EqualFold(name, action) }
}

// requestFor makes the request for an action that some statement names, or
// says why there is none.
func (d Document) requestFor(action, key string) (request, string) {
	r := request{action: action, resource: d.bucketARN, values: map[string]string{}}
	i := slices.IndexFunc(catalog, func(a s3Action) bool { return equalAction(action)(a.name) })
	switch {
	case i >= 0 && catalog[i].target == onObject:
		if key == "" {
			return r, action + " is asked of an object; give its key"
		}
		r.resource += "/" + key
	case i >= 0 && catalog[i].target == onPrefix:
		if key != "" {
			r.values["s3:prefix"] = key
		}
	case key != "":
		return r, action + " is not asked of a key; leave the key out"
	case i < 0: // The only actions outside the catalog are the key's.
		r.resource = d.keyARN
		r.values["kms:ViaService"] = d.viaServices[0]
	}
	return r, ""
}

// allows says whether the statement covers the request.
func (st Statement) allows(r request) bool {
	return slices.ContainsFunc(st.Actions, equalAction(r.action)) &&
		slices.ContainsFunc(st.Resources, func(p string) bool { return like(p, r.resource) }) &&
		st.Condition.holds(r.values)
}

// holds says whether the condition is met. A request without the key meets
// none, as with AWS.
func (c Condition) holds(values map[string]string) bool {
	if c.Operator == "" {
		return true
	}
	value, present := values[c.Key]
	return present && slices.ContainsFunc(c.Values, func(want string) bool {
		if c.Operator == stringLike {
			return like(want, value)
		}
		return want == value
	})
}

// like matches text against a pattern in which "*" stands for any text, also
// none, and everything else for itself. Build writes no other pattern: "?" and
// "$" are refused wherever they could come from.
func like(pattern, text string) bool {
	first, rest, found := strings.Cut(pattern, "*")
	if !found {
		return pattern == text
	}
	text, ok := strings.CutPrefix(text, first)
	if !ok {
		return false
	}
	// The parts between stars match at their first place: taking a later one
	// could only leave less text for what follows.
	for {
		part, more, found := strings.Cut(rest, "*")
		if !found {
			return strings.HasSuffix(text, part)
		}
		_, after, ok := strings.Cut(text, part)
		if !ok {
			return false
		}
		text, rest = after, more
	}
}
