//go:build unix

package tools_test

import "strings"

// way is one way to hand credentials to a tool.
type way int

const (
	byEndpoint way = iota
	byTokenFile
	byProcess
	byFile
	byExec
	byStatic
	ways
)

// wayTexts has a way's name in the table and in names of tests.
var wayTexts = [ways]struct{ title, slug string }{
	byEndpoint:  {"endpoint", "endpoint"},
	byTokenFile: {"endpoint, token in a file", "token-file"},
	byProcess:   {"`credential_process`", "process"},
	byFile:      {"credentials file", "file"},
	byExec:      {"`exec`", "exec"},
	byStatic:    {"`exec --env`", "static"},
}

// settings are what a tool is given beside its command line: the words in
// braces are placeholders that stand for what a user fills in.
type settings struct {
	env         []string
	config      string // ~/.aws/config
	credentials string // ~/.aws/credentials; empty: the file that the agent keeps
	wrap        string // before the command
}

const (
	fullURI   = "AWS_CONTAINER_CREDENTIALS_FULL_URI={endpoint}/{grant}"
	inProfile = "[default]\ncredential_process = stoker-agent credential-process --grant {grant}\n"
)

// settingsOf are the settings of each way that most tools share.
var settingsOf = [ways]settings{
	byEndpoint:  {env: []string{fullURI, "AWS_CONTAINER_AUTHORIZATION_TOKEN={token}"}},
	byTokenFile: {env: []string{fullURI, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE={token_file}"}},
	byProcess:   {config: inProfile},
	byFile:      {env: []string{"AWS_PROFILE=stoker-{grant}"}},
	byExec:      {wrap: "stoker-agent exec --grant {grant} -- "},
	byStatic:    {wrap: "stoker-agent exec --env --grant {grant} -- "},
}

// user is whose grants a way uses: an agent that keeps running has those of
// "backup", each exec logs in for its own.
func (w way) user() string {
	if w == byExec || w == byStatic {
		return "exec@acme"
	}
	return "backup@acme"
}

// fill puts values in for placeholders.
func fill(text string, values map[string]string) string {
	var pairs []string
	for name, value := range values {
		pairs = append(pairs, "{"+name+"}", value)
	}
	return strings.NewReplacer(pairs...).Replace(text)
}
