package password

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/stokerd/stoker/client/delivery"
)

// longest bounds, in bytes, what is read of a file with a secret.
const longest = 4 << 10

// credentialsVariable has the directory of the credentials that systemd gives to
// a service with LoadCredential=.
const credentialsVariable = "CREDENTIALS_DIRECTORY"

// Source gives a password, anew for each login, so that a changed one is picked
// up.
type Source func(context.Context) (string, error)

// Fixed gives always the same one.
func Fixed(password string) Source {
	return func(context.Context) (string, error) { return password, nil }
}

// File reads a file that nobody else may read. It is read once at once, so that a
// file that will not do is noticed now.
func File(file string) (Source, error) {
	if _, err := ReadSecret("password", file); err != nil {
		return nil, err
	}
	return func(context.Context) (string, error) { return ReadSecret("password", file) }, nil
}

// Credential reads a credential of the service, by its name in LoadCredential=.
func Credential(name string) (Source, error) {
	if name == "" || name != filepath.Base(name) || strings.HasPrefix(name, ".") {
		return nil, fmt.Errorf("credential %q: give its name in LoadCredential=", name)
	}
	dir := os.Getenv(credentialsVariable)
	if dir == "" {
		return nil, fmt.Errorf("credential %s: %s is not set: it is for a service of systemd, with LoadCredential=%s:FILE in its unit", name, credentialsVariable, name)
	}
	return File(filepath.Join(dir, name))
}

// HasCredential says whether the service has a credential of that name.
func HasCredential(name string) bool {
	dir := os.Getenv(credentialsVariable)
	if dir == "" {
		return false
	}
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}

// ReadSecret reads a file that nobody else may read. One newline at its end is not
// part of what is in it. what names it in errors.
func ReadSecret(what, file string) (string, error) {
	text, err := readPrivate(file)
	if err != nil {
		return "", fmt.Errorf("%s file: %w", what, err)
	}
	if len(text) > longest {
		return "", fmt.Errorf("%s file: %s is over %d bytes", what, file, longest)
	}
	secret := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	if secret == "" {
		return "", fmt.Errorf("%s file: %s is empty", what, file)
	}
	return secret, nil
}

func readPrivate(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := CheckPrivate(file); err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(f, longest+1))
}

// CheckPrivate refuses a file that holds a secret and that everybody may read, or
// that is not there. The error has the fix.
func CheckPrivate(file string) error {
	if file == "" {
		return errors.New("it has no name")
	}
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	return delivery.CheckPrivate(file, info)
}
