package main

import (
	"strings"

	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// pageSize is how many entries are asked for at once.
const pageSize = 1000

// switching enables or disables.
type switching struct {
	Disable bool `xor:"switch" help:"Issue nothing from now on, and end its streams."`
	Enable  bool `xor:"switch" help:"Issue again."`
}

// unchanged guards a change against others that came in between.
type unchanged struct {
	Etag string `placeholder:"ETAG" help:"Change it only if it still has this etag, which get shows."`
}

// edit collects what an update changes.
type edit struct{ mask fieldmaskpb.FieldMask }

// given notes a field whose flag is there, and gives its value.
func given[T any](e *edit, path string, flag *T) (value T) {
	if flag != nil {
		e.mask.Paths = append(e.mask.Paths, path)
		value = *flag
	}
	return value
}

// disabled notes the field if either flag is there.
func (e *edit) disabled(s switching) bool {
	if s.Disable || s.Enable {
		e.mask.Paths = append(e.mask.Paths, "disabled")
	}
	return s.Disable
}

// paths refuses an update without a change.
func (e *edit) paths() (*fieldmaskpb.FieldMask, error) {
	if len(e.mask.Paths) == 0 {
		return nil, usagef("nothing to change; name a flag, see --help")
	}
	return &e.mask, nil
}

// login is login@tenant.
type login struct{ login, tenant string }

func (l *login) UnmarshalText(text []byte) error {
	var ok bool
	if l.login, l.tenant, ok = strings.Cut(string(text), "@"); !ok || l.login == "" || l.tenant == "" {
		return usagef("%q is not written LOGIN@TENANT", text)
	}
	return nil
}

func (l login) String() string { return l.login + "@" + l.tenant }

// member is tenant/name.
type member struct{ tenant, name string }

func (m *member) UnmarshalText(text []byte) error {
	var ok bool
	if m.tenant, m.name, ok = strings.Cut(string(text), "/"); !ok || m.tenant == "" || m.name == "" {
		return usagef("%q is not written TENANT/NAME", text)
	}
	return nil
}

func (m member) String() string { return m.tenant + "/" + m.name }
