package delivery

import (
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/stokerd/stoker/client"
)

// ownPrefix begins the names of this program's own settings. None of them, the
// password above all, is a child's business.
const ownPrefix = "STOKER_"

// shadowing are the variables that tools prefer to the endpoint's, so that a
// child which inherited one would work with other keys than the broker's.
var shadowing = []string{
	// Static keys, in today's names and in those of boto 2, the Java SDK and
	// minio-go.
	"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN",
	"AWS_ACCESS_KEY", "AWS_SECRET_KEY", "AWS_CREDENTIAL_EXPIRATION", "AWS_CREDENTIAL_FILE",
	"MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY",
	// A profile with keys of its own.
	"AWS_PROFILE", "AWS_DEFAULT_PROFILE",
	// Web identity comes before the endpoint in every chain.
	"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME",
	// The relative URI comes before the full one, the file before the token.
	"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
	"AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN",
}

// sharedFileVariable names the credentials file, whose default profile tools
// prefer to the endpoint.
const sharedFileVariable = "AWS_SHARED_CREDENTIALS_FILE"

// Environment makes a child's environment: base, without our own settings and
// without what would shadow the given variables, and those. The
// shared-credentials file is put out of the child's sight.
func Environment(base []string, variables ...string) []string {
	variables = append(variables, sharedFileVariable+"="+os.DevNull)
	replaced := make([]string, 0, len(variables))
	for _, v := range variables {
		name, _, _ := strings.Cut(v, "=")
		replaced = append(replaced, name)
	}
	kept := make([]string, 0, len(base)+len(variables))
	for _, entry := range base {
		name, _, _ := strings.Cut(entry, "=")
		if !hidden(name, replaced) {
			kept = append(kept, entry)
		}
	}
	return append(kept, variables...)
}

func hidden(name string, replaced []string) bool {
	if runtime.GOOS == "windows" {
		name = strings.ToUpper(name) // names there have no case
	}
	return strings.HasPrefix(name, ownPrefix) || slices.Contains(shadowing, name) || slices.Contains(replaced, name)
}

// RegionVariables tell a tool the region of a credential's bucket, where there
// is one.
func RegionVariables(c client.Credential) []string {
	if c.Target.Region == "" {
		return nil
	}
	return []string{"AWS_REGION=" + c.Target.Region, "AWS_DEFAULT_REGION=" + c.Target.Region}
}

// StaticVariables are a credential's keys for tools that know nothing better.
// They are never refreshed: after Expires the tool fails.
func StaticVariables(c client.Credential) []string {
	return []string{
		"AWS_ACCESS_KEY_ID=" + c.AccessKeyID,
		"AWS_SECRET_ACCESS_KEY=" + c.SecretAccessKey,
		"AWS_SESSION_TOKEN=" + c.SessionToken,
		"AWS_CREDENTIAL_EXPIRATION=" + expiration(c.Expires),
	}
}
