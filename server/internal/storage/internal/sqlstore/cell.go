package sqlstore

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/stokerd/stoker/server/internal/storage"
)

// cell binds one field of a stored type to its column. It checks and converts
// the value on its way in, and is the sql.Scanner for it on its way out, so
// that each type is described once for all its queries.
type cell struct {
	column string
	field  any // pointer to the field
	limit  int // bytes; of texts, lists and blobs
	// required refuses the empty value. Other empty values are NULL, except
	// for numbers and flags.
	required bool
	// fixed fields do not change in an update.
	fixed bool
}

// key is a required text that rows are looked up by.
func key(column string, field *string) cell {
	return cell{column: column, field: field, limit: storage.MaxKey, required: true}
}

// reference is a text that rows are looked up by, if it is set.
func reference(column string, field *string) cell {
	return cell{column: column, field: field, limit: storage.MaxKey}
}

func text(column string, field *string) cell {
	return cell{column: column, field: field, limit: storage.MaxText}
}

func flag(column string, field *bool) cell { return cell{column: column, field: field} }

func number(column string, field *int64) cell { return cell{column: column, field: field} }

// instant is a time that may be zero.
func instant(column string, field *time.Time) cell { return cell{column: column, field: field} }

// moment is a time that may not be zero.
func moment(column string, field *time.Time) cell {
	return cell{column: column, field: field, required: true}
}

func blob(column string, field *[]byte, limit int) cell {
	return cell{column: column, field: field, limit: limit}
}

// list and dictionary are kept as JSON.
func list(column string, field *[]string) cell {
	return cell{column: column, field: field, limit: storage.MaxText}
}

func dictionary(column string, field *map[string]string) cell {
	return cell{column: column, field: field, limit: storage.MaxText}
}

// fixed marks a cell as one that an update cannot change.
func fixed(c cell) cell {
	c.fixed = true
	return c
}

// put checks the field and gives what is stored of it. It also brings the
// field itself into the form in which it will be read back: times in UTC to
// the microsecond, empty lists as nil.
func (c cell) put() (any, error) {
	value, err := c.encode()
	if err != nil {
		return nil, err
	}
	if value == nil && c.required {
		return nil, c.invalid("is missing")
	}
	return value, nil
}

func (c cell) encode() (any, error) {
	switch field := c.field.(type) {
	case *bool:
		return *field, nil
	case *int64:
		return *field, nil
	case *string:
		if *field == "" {
			return nil, nil
		}
		return *field, c.check(*field)
	case *time.Time:
		if field.IsZero() {
			*field = time.Time{}
			return nil, nil
		}
		stored := field.UnixMicro()
		*field = time.UnixMicro(stored).UTC()
		return stored, nil
	case *[]byte:
		if len(*field) == 0 {
			*field = nil
			return nil, nil
		}
		if len(*field) > c.limit {
			return nil, c.invalid("has %d bytes, over %d", len(*field), c.limit)
		}
		return *field, nil
	case *[]string:
		if len(*field) == 0 {
			*field = nil
			return nil, nil
		}
		return c.encodeJSON(*field, *field...)
	case *map[string]string:
		if len(*field) == 0 {
			*field = nil
			return nil, nil
		}
		if encoded, ok := plainJSON(*field); ok && len(encoded) <= c.limit {
			return encoded, nil
		}
		texts := make([]string, 0, 2*len(*field))
		for k, v := range *field {
			texts = append(texts, k, v)
		}
		return c.encodeJSON(*field, texts...)
	case *unsearched:
		return c.encodeRest(field)
	default:
		return nil, fmt.Errorf("column %s: cannot store a %T", c.column, c.field)
	}
}

// encodeJSON checks the texts first, because the encoder would replace what is
// no UTF-8 without a word.
func (c cell) encodeJSON(value any, texts ...string) (any, error) {
	for _, s := range texts {
		if err := c.check(s); err != nil {
			return nil, err
		}
	}
	encoded, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("column %s: %w", c.column, err)
	}
	if len(encoded) > c.limit {
		return nil, c.invalid("has %d bytes, over %d", len(encoded), c.limit)
	}
	return string(encoded), nil
}

// plainJSON is what encoding/json makes of a dictionary of texts that have
// nothing to escape, which most are, in a fraction of the time.
func plainJSON(d map[string]string) (string, bool) {
	size := len("{}")
	for k, v := range d {
		if !unescaped(k) || !unescaped(v) {
			return "", false
		}
		size += len(k) + len(v) + len(`"":"",`)
	}
	b := append(make([]byte, 0, size), '{')
	var few [8]string // so many need no memory of their own
	keys := slices.AppendSeq(few[:0], maps.Keys(d))
	slices.Sort(keys)
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), k...), `":"`...)
		b = append(append(b, d[k]...), '"')
	}
	return string(append(b, '}')), true
}

// unescaped says of most texts that JSON has no escapes for them.
func unescaped(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return false
		}
	}
	return true
}

// check refuses texts that some backend cannot keep, in all of them alike.
func (c cell) check(s string) error {
	if len(s) > c.limit {
		return c.invalid("has %d bytes, over %d", len(s), c.limit)
	}
	if fault := textFault(s); fault != "" {
		return c.invalid("%s", fault)
	}
	return nil
}

// textFault says why no backend can keep the text, or nothing.
func textFault(s string) string {
	switch {
	case strings.IndexByte(s, 0) >= 0:
		return "holds a NUL"
	case !utf8.ValidString(s):
		return "is not UTF-8"
	}
	return ""
}

// checkArgs refuses to look for texts that cannot be stored.
func checkArgs(args []any) error {
	for _, arg := range args {
		if s, ok := arg.(string); ok {
			if fault := textFault(s); fault != "" {
				return fmt.Errorf("%w: what is looked for %s", storage.ErrInvalid, fault)
			}
		}
	}
	return nil
}

// invalid never shows the value: it may be long, and it may be a secret.
func (c cell) invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s "+format, append([]any{storage.ErrInvalid, c.column}, args...)...)
}

// Scan implements sql.Scanner.
func (c cell) Scan(stored any) error {
	switch field := c.field.(type) {
	case *bool:
		switch v := stored.(type) {
		case bool:
			*field = v
			return nil
		case int64:
			*field = v != 0
			return nil
		}
	case *int64:
		if v, ok := stored.(int64); ok {
			*field = v
			return nil
		}
	case *time.Time:
		switch v := stored.(type) {
		case nil:
			*field = time.Time{}
			return nil
		case int64:
			*field = time.UnixMicro(v).UTC()
			return nil
		}
	case *[]byte:
		switch v := stored.(type) {
		case nil:
			*field = nil
			return nil
		case []byte:
			*field = append([]byte(nil), v...)
			return nil
		}
	default:
		return c.scanText(stored)
	}
	return c.unreadable(stored)
}

func (c cell) scanText(stored any) error {
	var s string
	switch v := stored.(type) {
	case nil:
	case string:
		s = v
	case []byte:
		s = string(v)
	default:
		return c.unreadable(stored)
	}
	switch field := c.field.(type) {
	case *string:
		*field = s
		return nil
	case *[]string:
		*field = nil
		return c.decodeJSON(s, field)
	case *map[string]string:
		*field = nil
		return c.decodeJSON(s, field)
	case *unsearched:
		return c.decodeRest(s, field)
	}
	return c.unreadable(stored)
}

func (c cell) decodeJSON(s string, field any) error {
	if s == "" {
		return nil
	}
	if err := json.Unmarshal([]byte(s), field); err != nil {
		return fmt.Errorf("column %s: %w", c.column, err)
	}
	return nil
}

func (c cell) unreadable(stored any) error {
	return fmt.Errorf("column %s: cannot read a %T into a %T", c.column, stored, c.field)
}
