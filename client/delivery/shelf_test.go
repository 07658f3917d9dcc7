package delivery

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stokerd/stoker/client"
)

// shelf is a supply that a test fills.
type shelf struct {
	mu          sync.Mutex
	credentials map[string]client.Credential
	errors      map[string]*client.CredentialError
}

func newShelf(credentials ...client.Credential) *shelf {
	s := &shelf{credentials: make(map[string]client.Credential), errors: make(map[string]*client.CredentialError)}
	for _, c := range credentials {
		s.put(c)
	}
	return s
}

func (s *shelf) put(c client.Credential) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.credentials[c.Grant] = c
	delete(s.errors, c.Grant)
}

func (s *shelf) fail(grant string, state error, cause *client.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.credentials, grant)
	s.errors[grant] = &client.CredentialError{Grant: grant, State: state, Cause: cause}
}

func (s *shelf) Grants() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name := range s.credentials {
		names = append(names, name)
	}
	for name := range s.errors {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (s *shelf) Credential(grant string) (client.Credential, error) {
	if grant == "" {
		names := s.Grants()
		if len(names) != 1 {
			return client.Credential{}, &client.CredentialError{State: client.ErrAmbiguous}
		}
		grant = names[0]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.credentials[grant]; ok {
		return c, nil
	}
	if err := s.errors[grant]; err != nil {
		return client.Credential{}, err
	}
	return client.Credential{}, &client.CredentialError{Grant: grant, State: client.ErrNotConfigured}
}

func credentialOf(grant string) client.Credential {
	return client.Credential{
		ID: "018f0000-0000-7000-8000-000000000001", Grant: grant,
		AccessKeyID: "ASIA" + strings.ToUpper(grant), SecretAccessKey: "secret-of-" + grant, SessionToken: "token-of-" + grant,
		Expires: time.Now().Add(time.Hour).Truncate(time.Second).UTC(),
		Target:  client.Target{Bucket: "backups", Prefix: grant + "/", Region: "eu-central-1"},
		Access:  "backup",
	}
}

var errTest = errors.New("made by the test")
