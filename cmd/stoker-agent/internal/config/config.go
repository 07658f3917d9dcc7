package config

import "time"

// Config is stoker-agent.yaml. Its comments are the reference in docs/agent.md.
// Relative paths are taken from the file's own directory, and ~/ is the home of
// the user who runs the agent.
type Config struct {
	// Addresses host:port of the broker, tried in this order. A name that
	// resolves to several addresses is tried at each of them. Required.
	Brokers []string `yaml:"brokers"`
	// File of the authority (PEM) that signed the broker's certificate. Default:
	// the system's authorities.
	CA string `yaml:"ca"`
	// File of this agent's certificate (PEM). Required.
	Certificate string `yaml:"certificate"`
	// File of its key (PEM), which not everybody may read. Required.
	Key string `yaml:"key"`
	// Name in the broker's certificate, if it is not the host's.
	ServerName string `yaml:"server_name"`
	// Whether the agent renews its certificate at two thirds of its life and
	// replaces the two files. Default true.
	Renew *bool `yaml:"renew"`
	// The users to log in as, by login@tenant. The certificate is of one tenant,
	// and so are they. Required.
	Users map[string]UserConfig `yaml:"users"`
	// Loopback address of the endpoint. Default 127.0.0.1:9797.
	Listen string `yaml:"listen"`
	// File with the endpoint's token, made if need be. Default: beside the socket.
	TokenFile string `yaml:"token_file"`
	// Further tokens for the endpoint, by a name of your choosing. Each is good for
	// its own grants alone, so that no tool reaches another's.
	Consumers map[string]ConsumerConfig `yaml:"consumers"`
	// Where the agent's own subcommands reach it: a socket's file or, on Windows,
	// a pipe's name. Default: as said above the keys.
	Socket string `yaml:"socket"`
	// Shared-credentials file to keep a profile for each grant in, such as
	// ~/.aws/credentials. Default: none. It needs the users' grants named.
	CredentialsFile string `yaml:"credentials_file"`
	// Profile in that file by grant. Default: stoker-GRANT.
	Profiles map[string]string `yaml:"profiles"`
	// A command to run when a credential was renewed or revoked. Default: none.
	Hook *HookConfig `yaml:"hook"`
	// Emulation of EC2's instance metadata service, version 2, for tools that can
	// ask nothing else. Default: none. Every user of the machine gets the
	// credentials from it.
	IMDS *IMDSConfig `yaml:"imds"`
	// What is logged, to standard error (as a service of Windows, to the event
	// log).
	Log LogConfig `yaml:"log"`
}

// UserConfig says how a user logs in and what for. One of the places of the
// password is required.
type UserConfig struct {
	// File with the password, which not everybody may read. It is read again for
	// each login.
	PasswordFile string `yaml:"password_file"`
	// Name of the systemd credential that is the password: the unit has
	// LoadCredential=NAME:FILE.
	PasswordCredential string `yaml:"password_credential"`
	// Whether the password is in the operating system's keyring, where
	// stoker-agent login puts it.
	PasswordKeyring bool `yaml:"password_keyring"`
	// The grants to hold. Each is held for one user. Default, with a single user:
	// all that the user has.
	Grants []string `yaml:"grants"`
}

// ConsumerConfig is a tool that asks the endpoint.
type ConsumerConfig struct {
	// File with its token, made if need be, with mode 0600. For a tool of another
	// user make it yourself: at least 26 letters and digits without a newline, mode
	// 0640, that user's group. Required.
	TokenFile string `yaml:"token_file"`
	// The grants that it may have. Default: all.
	Grants []string `yaml:"grants"`
}

// HookConfig is a command that is told of credentials.
type HookConfig struct {
	// The program, by its absolute path or a path from the file's directory, and
	// its arguments. No shell is in between. Required.
	Command []string `yaml:"command"`
	// How long it may run before it is ended. Default 30s, at least 1s, at most 10m.
	Timeout time.Duration `yaml:"timeout"`
}

// IMDSConfig is a metadata service.
type IMDSConfig struct {
	// Loopback address. Required.
	Listen string `yaml:"listen"`
	// The grant that is served. Default: the only one.
	Grant string `yaml:"grant"`
}

// LogConfig says what is logged.
type LogConfig struct {
	// Least level: debug, info, warn or error. Default info.
	Level string `yaml:"level"`
	// text or json. Default text.
	Format string `yaml:"format"`
}
