package issuer

import (
	"errors"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/processcreds"
)

// temporary says whether the keys are a session's. The prefix is AWS's; other
// STSs do not keep to it, so a session token counts by itself.
func temporary(keys aws.Credentials) bool {
	return keys.SessionToken != "" || strings.HasPrefix(keys.AccessKeyID, "ASIA")
}

// keySourceText says why the broker's keys cannot be had. A credential process
// may have printed keys that the SDK could not parse, and its error then holds
// the whole output: that text is never shown.
func keySourceText(err error) string {
	if _, ok := errors.AsType[*processcreds.ProviderError](err); ok {
		return "the profile's credential_process failed or printed no valid keys: run it by hand"
	}
	return scrubber{}.line(err.Error(), maxMessage)
}
