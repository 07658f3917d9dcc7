package delivery

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// shadowingKeys are the settings of a default profile that tools prefer to the
// endpoint.
var shadowingKeys = []string{
	"aws_access_key_id", "credential_process", "role_arn", "web_identity_token_file",
	"sso_session", "sso_start_url", "login_session",
}

// ShadowingConfig looks for credentials in the default profile of the AWS
// configuration file that a child with this environment would read. Tools prefer
// those to the endpoint, and the file cannot be hidden from them like the
// credentials file: regions and endpoints are in it too. It gives the file and
// the setting, or nothing.
func ShadowingConfig(environment []string) (file, setting string) {
	file = lookup(environment, "AWS_CONFIG_FILE")
	if file == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", "" // without a home nobody finds the file
		}
		file = filepath.Join(home, ".aws", "config")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", "" // what we cannot read, the child cannot either
	}
	inDefault := false
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		if name, isHeader := header(line); isHeader {
			inDefault = name == "default" || name == "profile default"
			continue
		}
		key, _, found := strings.Cut(line, "=")
		if inDefault && found && slices.Contains(shadowingKeys, strings.ToLower(strings.TrimSpace(key))) {
			return file, strings.TrimSpace(key)
		}
	}
	return "", ""
}

func lookup(environment []string, name string) string {
	value := ""
	for _, entry := range environment {
		if v, found := strings.CutPrefix(entry, name+"="); found {
			value = v // the last one counts
		}
	}
	return value
}
