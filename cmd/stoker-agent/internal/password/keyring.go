package password

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zalando/go-keyring"
)

// service is the name of our entries in a keyring.
const service = "stoker-agent"

// patience is how long a keyring may take: one that is locked asks a person.
const patience = 30 * time.Second

// ErrNoEntry says that the keyring has no password of the user.
var ErrNoEntry = errors.New("the keyring has no such password")

// Keyring keeps passwords by login: Keychain on macOS, the Credential Manager on
// Windows, the Secret Service (GNOME Keyring, KWallet) elsewhere. Get and Delete
// fail with ErrNoEntry where there is none. Its errors hold no password.
type Keyring interface {
	Get(login string) (string, error)
	Set(login, password string) error
	Delete(login string) error
}

// System is the operating system's keyring, that of the user who runs this.
func System() Keyring { return system{} }

type system struct{}

func (system) Get(login string) (string, error) {
	if err := reachable(); err != nil {
		return "", err
	}
	password, err := keyring.Get(service, login)
	return password, named(err)
}

func (system) Set(login, password string) error {
	if err := reachable(); err != nil {
		return err
	}
	return named(keyring.Set(service, login, password))
}

func (system) Delete(login string) error {
	if err := reachable(); err != nil {
		return err
	}
	return named(keyring.Delete(service, login))
}

func named(err error) error {
	if errors.Is(err, keyring.ErrNotFound) {
		return ErrNoEntry
	}
	return err
}

// FromKeyring takes a user's password from a keyring. A keyring that has none is
// an error now; one that cannot be asked as yet, such as a locked one, is not.
func FromKeyring(ctx context.Context, from Keyring, login string) (Source, error) {
	source := func(ctx context.Context) (string, error) {
		password, err := get(ctx, from, login)
		switch {
		case errors.Is(err, ErrNoEntry):
			return "", missingEntry(login)
		case err != nil:
			return "", fmt.Errorf("keyring: %w", err)
		}
		return password, nil
	}
	if _, err := get(ctx, from, login); errors.Is(err, ErrNoEntry) {
		return source, missingEntry(login)
	}
	return source, nil
}

func missingEntry(login string) error {
	return fmt.Errorf("the keyring has no password of %s: run stoker-agent login as the user who runs the agent", login)
}

// Has says whether the keyring has a user's password. A keyring that cannot be
// asked has none.
func Has(ctx context.Context, from Keyring, login string) bool {
	_, err := get(ctx, from, login)
	return err == nil
}

// get asks a keyring, which knows no context: one that does not answer is left to
// itself. At most one question is open for each login, since a source logs in
// one at a time, or two while its certificate changes.
func get(ctx context.Context, from Keyring, login string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("it did not answer: it may be locked"))
	defer cancel()
	type answer struct {
		password string
		err      error
	}
	answers := make(chan answer, 1)
	go func() {
		password, err := from.Get(login)
		answers <- answer{password, err}
	}()
	select {
	case a := <-answers:
		return a.password, a.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}
