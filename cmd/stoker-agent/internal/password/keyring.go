package password

import (
	"context"
	"errors"
	"fmt"
	"sync"
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
	asker := &asker{from: from, login: login}
	source := func(ctx context.Context) (string, error) {
		password, err := asker.get(ctx)
		switch {
		case errors.Is(err, ErrNoEntry):
			return "", missingEntry(login)
		case err != nil:
			return "", fmt.Errorf("keyring: %w", err)
		}
		return password, nil
	}
	if _, err := asker.get(ctx); errors.Is(err, ErrNoEntry) {
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
	_, err := (&asker{from: from, login: login}).get(ctx)
	return err == nil
}

// asker asks a keyring for one user's password. A keyring knows no context: one
// that does not answer is left to itself, and while it does not, it is not asked
// again, however often a password is wanted. It is safe for concurrent use.
type asker struct {
	from  Keyring
	login string

	mu   sync.Mutex
	open *question // nil: none
}

// question is one that has no answer before done is closed.
type question struct {
	done     chan struct{}
	password string
	err      error
}

func (a *asker) get(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("it did not answer: it may be locked"))
	defer cancel()
	q := a.ask()
	select {
	case <-q.done:
		return q.password, q.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// ask gives the question that is open, or asks anew.
func (a *asker) ask() *question {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open != nil {
		return a.open
	}
	q := &question{done: make(chan struct{})}
	a.open = q
	go func() {
		q.password, q.err = a.from.Get(a.login)
		a.mu.Lock()
		a.open = nil
		a.mu.Unlock()
		close(q.done)
	}()
	return q
}
