// Package awsiam reaches the IAM of an account.
//
// It owns how a call goes out: over which connections, signed with which keys,
// for how long, and never twice. What IAM is asked, and what its answers mean,
// is its callers' business.
package awsiam
