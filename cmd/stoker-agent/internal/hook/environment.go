package hook

import (
	"runtime"
	"slices"
	"strings"
	"time"
)

// foreign are variables that are meant for the agent alone: where systemd has put
// its credentials, and how it speaks to its supervisor.
var foreign = []string{
	"CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID",
	"MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE", "INVOCATION_ID", "SYSTEMD_EXEC_PID", "JOURNAL_STREAM",
	// Tokens and keys for S3 that somebody has set around the agent.
	"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN",
}

// Inherited takes out of an environment what a hook is not to see: our own
// settings, the password above all, and foreign's.
func Inherited(environment []string) []string {
	var kept []string
	for _, entry := range environment {
		name, _, _ := strings.Cut(entry, "=")
		if runtime.GOOS == "windows" {
			name = strings.ToUpper(name) // names there have no case
		}
		if !strings.HasPrefix(name, "STOKER_") && !slices.Contains(foreign, name) {
			kept = append(kept, entry)
		}
	}
	return kept
}

// environment is the command's. STOKER_GRANT and STOKER_SOCKET are also what
// stoker-agent credential-process reads, so that a hook may call it.
func (r *Runner) environment(e Event) []string {
	environment := append(slices.Clip(r.config.Environment),
		"STOKER_EVENT="+e.Kind, "STOKER_GRANT="+e.Grant, "STOKER_LOGIN="+e.Login, "STOKER_SOCKET="+r.config.Socket)
	if !e.Expires.IsZero() {
		environment = append(environment, "STOKER_EXPIRES="+e.Expires.UTC().Format(time.RFC3339))
	}
	if e.Reason != "" {
		environment = append(environment, "STOKER_REASON="+e.Reason)
	}
	if e.Profile != "" {
		environment = append(environment, "STOKER_PROFILE="+e.Profile)
	}
	return environment
}
