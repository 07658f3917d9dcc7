package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/stokerd/stoker/internal/strictyaml"
)

// Defaults, and the bounds of a hook's time.
const (
	DefaultListen  = "127.0.0.1:9797"
	defaultTimeout = 30 * time.Second
	leastTimeout   = time.Second
	mostTimeout    = 10 * time.Minute
)

// longestFile bounds, in bytes, what is read.
const longestFile = 1 << 20

// Read reads a file, fills in the defaults, makes paths absolute, and checks all
// that can be checked without a broker. The error lists every problem with its
// line. The passwords' places are left to the caller: see Config.Problem.
func Read(file string) (*File, error) {
	file, err := filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	text, err := readBounded(file)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	f := &File{Path: file}
	f.document = strictyaml.Decode(file, text, &f.Config)
	home, err := os.UserHomeDir()
	if err != nil {
		home = "" // a service may have none, and ~/ is then refused
	}
	f.complete(filepath.Dir(file), home)
	f.check()
	return f, nil
}

func readBounded(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, longestFile+1))
	if err == nil && len(text) > longestFile {
		err = fmt.Errorf("%s is over %d bytes", file, longestFile)
	}
	return text, err
}

// File is a configuration that was read, with what is wrong with it.
type File struct {
	Config
	// Path is where it was read, absolute.
	Path string

	document *strictyaml.Document
}

// Problem reports something else that is wrong, at a key such as
// "users.nightly@acme.password_file".
func (f *File) Problem(key, format string, args ...any) { f.document.Add(key, format, args...) }

// Err gives all problems, or nil.
func (f *File) Err() error { return f.document.Err() }

// Logins gives the users' logins, sorted.
func (f *File) Logins() []string {
	logins := make([]string, 0, len(f.Users))
	for login := range f.Users {
		logins = append(logins, login)
	}
	slices.Sort(logins)
	return logins
}

// complete fills in the defaults and makes the paths absolute.
func (f *File) complete(dir, home string) {
	if f.Listen == "" {
		f.Listen = DefaultListen
	}
	if f.Renew == nil {
		yes := true
		f.Renew = &yes
	}
	if f.Log.Level == "" {
		f.Log.Level = "info"
	}
	if f.Log.Format == "" {
		f.Log.Format = "text"
	}
	place := func(key string, path *string) {
		var err error
		if *path, err = absolute(*path, dir, home); err != nil {
			f.Problem(key, "%v", err)
		}
	}
	place("ca", &f.CA)
	place("certificate", &f.Certificate)
	place("key", &f.Key)
	place("token_file", &f.TokenFile)
	place("credentials_file", &f.CredentialsFile)
	if !isPipe(f.Socket) {
		place("socket", &f.Socket)
	}
	for login, user := range f.Users {
		place("users."+login+".password_file", &user.PasswordFile)
		f.Users[login] = user
	}
	for name, consumer := range f.Consumers {
		place("consumers."+name+".token_file", &consumer.TokenFile)
		f.Consumers[name] = consumer
	}
	if f.Hook != nil {
		if f.Hook.Timeout == 0 && !f.document.Has("hook.timeout") {
			f.Hook.Timeout = defaultTimeout
		}
		if len(f.Hook.Command) > 0 {
			place("hook.command[0]", &f.Hook.Command[0])
		}
	}
}

// isPipe says whether a place is the name of a Windows pipe.
func isPipe(place string) bool {
	return runtime.GOOS == "windows" && strings.HasPrefix(place, `\\.\pipe\`)
}

// absolute gives a path from a directory, or from the home for ~/.
func absolute(path, dir, home string) (string, error) {
	switch {
	case path == "" || filepath.IsAbs(path):
		return path, nil
	case strings.HasPrefix(path, "~/") && home == "":
		return path, errors.New("the user who runs the agent has no home: write the path out")
	case strings.HasPrefix(path, "~/"):
		return filepath.Join(home, path[2:]), nil
	}
	return filepath.Join(dir, path), nil
}
