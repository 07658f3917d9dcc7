package adminapi

import (
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/stokerd/stoker/server/internal/reason"
)

// Limits of what an operator may send where the protos name none.
const (
	maxDisplayName = 128 // characters
	maxEtag        = 64
	maxMask        = 64 // paths
	maxEndpoint    = 255
	maxEvents      = 100
	maxFilter      = 128
)

// invalid refuses a field, which the message begins with.
func invalid(field, format string, args ...any) *reason.Error {
	return reason.New(reason.InvalidRequest, field+" "+format, args...).With("field", field)
}

// form is what a kind of name looks like.
type form struct {
	pattern *regexp.Regexp
	want    string
}

var (
	tenantForm = form{regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,30}$`), "up to 31 lower-case letters, digits and dashes, beginning with a letter or digit"}
	nameForm   = form{regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`), "up to 63 lower-case letters, digits and dashes, beginning with a letter or digit"}
	loginForm  = form{regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`), "up to 64 lower-case letters, digits, dots, dashes and underscores, beginning with a letter or digit"}
	regionForm = form{regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`), "a region such as eu-central-1"}
)

// check refuses a name that is missing or not of the form. A name that long or
// odd is not repeated whole.
func (f form) check(field, value string) error {
	switch {
	case value == "":
		return invalid(field, "is missing; give %s", f.want)
	case !f.pattern.MatchString(value):
		return invalid(field, "%.70q is not valid; use %s", value, f.want)
	}
	return nil
}

// canonicalLogin lowers ASCII alone: of two texts that look alike at most one
// is a login.
func canonicalLogin(login string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + ('a' - 'A')
		}
		return r
	}, login)
}

// checkText refuses text for people that is too long or holds characters that
// do not show.
func checkText(field, value string, most int) error {
	if n := utf8.RuneCountInString(value); n > most {
		return invalid(field, "has %d characters; at most %d", n, most)
	}
	for _, r := range value {
		if !unicode.IsPrint(r) {
			return invalid(field, "has the character %U, which does not show; leave it out", r)
		}
	}
	return nil
}

func checkEtag(etag string) error {
	if len(etag) > maxEtag {
		return invalid("etag", "has %d characters, more than any that was given out; read the resource again", len(etag))
	}
	return nil
}

// fields says which fields an update changes.
type fields map[string]bool

// readMask reads an update mask. An empty one means all of the known fields.
func readMask(mask *fieldmaskpb.FieldMask, known ...string) (fields, error) {
	paths := mask.GetPaths()
	if len(paths) == 0 {
		paths = known
	}
	if len(paths) > maxMask {
		return nil, invalid("update_mask", "has %d paths; at most %d", len(paths), maxMask)
	}
	chosen := fields{}
	for _, path := range paths {
		found := false
		for _, k := range known {
			found = found || k == path
		}
		if !found {
			return nil, invalid("update_mask", "names %.70q; it may name %s", path, strings.Join(known, ", "))
		}
		chosen[path] = true
	}
	return chosen, nil
}

// take sets a field if the update changes it.
func take[T any](f fields, name string, to *T, from T) {
	if f[name] {
		*to = from
	}
}

// readTime reads a time that may be missing.
func readTime(field string, t *timestamppb.Timestamp) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if err := t.CheckValid(); err != nil {
		return time.Time{}, invalid(field, "is no time; give seconds from year 1 to 9999")
	}
	return t.AsTime(), nil
}
