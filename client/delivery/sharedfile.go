package delivery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/internal/atomicfile"
)

// mark stands in every profile that we write, and only there.
const mark = "# kept by stoker-agent: changes here are lost"

// repeatAfter is when a file that could not be written is tried again.
const repeatAfter = 15 * time.Second

var profileName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@/+-]{0,127}$`)

// ErrForeignProfile is returned where a profile of the wanted name exists and is
// somebody else's.
var ErrForeignProfile = errors.New("the profile exists and is not stoker-agent's: choose another name, or remove it")

// SharedFile keeps one profile for each grant in a shared-credentials file,
// leaving everything else in it as it is. The file is replaced in one step,
// under a lock beside it ("credentials.stoker-lock"), and is its owner's alone.
type SharedFile struct {
	file     string
	profiles map[string]string // by grant
}

// NewSharedFile prepares a file; profiles has a profile's name for each grant.
func NewSharedFile(file string, profiles map[string]string) (*SharedFile, error) {
	owners := make(map[string]string)
	var problems []error
	for grant, profile := range profiles {
		if !profileName.MatchString(profile) {
			problems = append(problems, fmt.Errorf("profile %q of grant %s: use letters, digits and ._@/+-", profile, grant))
		}
		if other, taken := owners[profile]; taken {
			names := []string{grant, other}
			slices.Sort(names)
			problems = append(problems, fmt.Errorf("profile %q: grants %s and %s both want it", profile, names[0], names[1]))
		}
		owners[profile] = grant
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return &SharedFile{file: file, profiles: profiles}, nil
}

// Put writes a credential into its grant's profile.
func (s *SharedFile) Put(c client.Credential) error {
	profile, ok := s.profiles[c.Grant]
	if !ok {
		return fmt.Errorf("grant %s has no profile", c.Grant)
	}
	return s.edit(func(text []byte) ([]byte, error) { return putProfile(text, profile, c) })
}

// Remove takes a grant's profile out of the file.
func (s *SharedFile) Remove(grant string) error {
	profile, ok := s.profiles[grant]
	if !ok {
		return nil
	}
	return s.edit(func(text []byte) ([]byte, error) { return dropProfile(text, profile), nil })
}

// Clear takes all our profiles out of the file.
func (s *SharedFile) Clear() error {
	return s.edit(func(text []byte) ([]byte, error) {
		for _, profile := range s.profiles {
			text = dropProfile(text, profile)
		}
		return text, nil
	})
}

// Follow keeps the file as the supply says until ctx ends, and takes our profiles
// out then. changed receives whenever credentials came or went, such as
// Source.Updated. After each look done is told whether the file is as the supply
// says. An error does not end it: the file is tried again a little later.
func (s *SharedFile) Follow(ctx context.Context, supply Supply, changed <-chan struct{}, done func(error)) error {
	repeat := time.NewTimer(0)
	defer repeat.Stop()
	for {
		select {
		case <-ctx.Done():
			return s.Clear()
		case <-changed:
		case <-repeat.C:
		}
		err := s.reconcile(supply)
		if err != nil {
			err = fmt.Errorf("the shared-credentials file %s was not written: %w", s.file, err)
			repeat.Reset(repeatAfter)
		}
		done(err)
	}
}

// reconcile writes what the supply hands out and removes what it does not.
func (s *SharedFile) reconcile(supply Supply) error {
	var problems []error
	for grant := range s.profiles {
		c, err := supply.Credential(grant)
		if err == nil {
			problems = append(problems, s.Put(c))
		} else {
			problems = append(problems, s.Remove(grant))
		}
	}
	return errors.Join(problems...)
}

// edit changes the file under its lock. Text that does not change is not
// written.
func (s *SharedFile) edit(change func([]byte) ([]byte, error)) (err error) {
	file := s.file
	if target, err := filepath.EvalSymlinks(file); err == nil {
		file = target // so that a link stays one
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	unlock, err := atomicfile.Lock(file + ".stoker-lock")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	before, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	after, err := change(before)
	if err != nil || bytes.Equal(before, after) {
		return err
	}
	return atomicfile.Write(file, after, 0o600)
}

// putProfile replaces or appends a profile.
func putProfile(text []byte, profile string, c client.Credential) ([]byte, error) {
	start, end, found := findProfile(text, profile)
	section := fmt.Sprintf("[%s]\n%s\n# expires %s\naws_access_key_id = %s\naws_secret_access_key = %s\naws_session_token = %s\n",
		profile, mark, expiration(c.Expires), c.AccessKeyID, c.SecretAccessKey, c.SessionToken)
	if !found {
		if len(text) > 0 && !bytes.HasSuffix(text, []byte("\n")) {
			text = append(bytes.Clone(text), '\n')
		}
		if len(text) > 0 {
			section = "\n" + section
		}
		return append(bytes.Clone(text), section...), nil
	}
	if !bytes.Contains(text[start:end], []byte(mark)) {
		return nil, fmt.Errorf("profile %q: %w", profile, ErrForeignProfile)
	}
	return slices.Concat(text[:start], []byte(section), text[end:]), nil
}

// dropProfile takes a profile out, with the empty line that was put before it,
// if it is ours.
func dropProfile(text []byte, profile string) []byte {
	start, end, found := findProfile(text, profile)
	if !found || !bytes.Contains(text[start:end], []byte(mark)) {
		return text
	}
	before := text[:start]
	if bytes.HasSuffix(before, []byte("\n\n")) {
		before = before[:len(before)-1]
	}
	return slices.Concat(before, text[end:])
}

// findProfile gives where a profile begins and where it ends: after its last
// setting, so that comments before the next header stay with that.
func findProfile(text []byte, profile string) (start, end int, found bool) {
	at := 0
	for line := range bytes.Lines(text) {
		next := at + len(line)
		trimmed := strings.TrimSpace(string(line))
		name, isHeader := header(trimmed)
		switch {
		case isHeader && found:
			return start, end, true
		case isHeader && name == profile:
			start, end, found = at, next, true
		case found && (strings.Contains(trimmed, "=") && !strings.HasPrefix(trimmed, "#") || trimmed == mark):
			end = next
		}
		at = next
	}
	return start, end, found
}

// header gives the name in a line such as "[default]".
func header(line string) (string, bool) {
	if !strings.HasPrefix(line, "[") {
		return "", false
	}
	name, _, found := strings.Cut(line[1:], "]")
	return strings.TrimSpace(name), found
}
