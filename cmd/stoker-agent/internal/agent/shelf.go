package agent

import (
	"slices"

	"github.com/stokerd/stoker/client"
)

// holder is one user's source.
type holder struct {
	login  string
	source *client.Source
}

// shelf is the supply of all users together: each grant is held for one of them.
// It is filled before it is used, and does not change then.
type shelf struct {
	holders []holder
	owners  map[string]*client.Source // by grant, where users name theirs
}

func newShelf() *shelf { return &shelf{owners: make(map[string]*client.Source)} }

func (s *shelf) add(login string, grants []string, source *client.Source) {
	s.holders = append(s.holders, holder{login, source})
	for _, grant := range grants {
		s.owners[grant] = source
	}
}

// Credential implements delivery.Supply.
func (s *shelf) Credential(grant string) (client.Credential, error) {
	if len(s.holders) == 1 {
		return s.holders[0].source.Credential(grant)
	}
	if source := s.owners[grant]; source != nil {
		return source.Credential(grant)
	}
	if grant == "" {
		return client.Credential{}, &client.CredentialError{State: client.ErrAmbiguous}
	}
	return client.Credential{}, &client.CredentialError{Grant: grant, State: client.ErrNotConfigured}
}

// Grants implements delivery.Supply.
func (s *shelf) Grants() []string {
	var names []string
	for _, h := range s.holders {
		names = append(names, h.source.Grants()...)
	}
	slices.Sort(names)
	return names
}
