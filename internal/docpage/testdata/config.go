package config

// Config is it.
type Config struct {
	// Listen is an
	// address.
	Listen string `yaml:"listen"`
	// Certificate and Key are files.
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
	Clock       func() `yaml:"-"`
	// Users by login.
	Users map[string]UserConfig `yaml:"users"`
	// Log says what is logged.
	Log *LogConfig `yaml:"log"`
}

type UserConfig struct {
	// Grants are names.
	Grants []string `yaml:"grants"`
	// For it is good.
	For time.Duration `yaml:"for"`
	// Hosts by name.
	Hosts map[string]HostConfig `yaml:"hosts"`
}

type HostConfig struct {
	// Share of it.
	Share float64 `yaml:"share"`
}

func nothing() {}

type LogConfig struct {
	// On is whether.
	On *bool `yaml:"on"`
}
