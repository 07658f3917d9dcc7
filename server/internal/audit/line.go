package audit

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"
	"unicode"
	"unicode/utf16"

	"github.com/stokerd/stoker/server/internal/storage"
)

// lineTime is RFC 3339 with microseconds, which is what storage keeps: a
// reader can compute the hash from a line.
const lineTime = "2006-01-02T15:04:05.000000Z07:00"

// AppendLine appends the record as one line of JSON, with a line feed at its
// end: the fields of docs/audit.md in their order, without the empty ones.
// Whatever is not printable stands as \uXXXX, so that a terminal which shows
// the line obeys nothing that a stranger has put into it.
func AppendLine(b []byte, r storage.AuditRecord) []byte {
	separator := byte('{')
	key := func(name string) {
		b = append(b, separator)
		b = appendQuoted(b, name)
		b = append(b, ':')
		separator = ','
	}
	for _, f := range fields {
		switch {
		case f.text != nil && *f.text(&r) != "":
			key(f.name)
			b = appendQuoted(b, *f.text(&r))
		case f.number != nil:
			key(f.name)
			b = strconv.AppendInt(b, *f.number(&r), 10)
		case f.time != nil && !f.time(&r).IsZero():
			key(f.name)
			b = appendQuoted(b, f.time(&r).UTC().Format(lineTime))
		case f.detail != nil && len(*f.detail(&r)) > 0:
			key(f.name)
			b = appendObject(b, *f.detail(&r))
		}
	}
	return append(b, '}', '\n')
}

func appendObject(b []byte, detail map[string]string) []byte {
	separator := byte('{')
	for _, key := range slices.Sorted(maps.Keys(detail)) {
		b = append(b, separator)
		b = appendQuoted(b, key)
		b = append(b, ':')
		b = appendQuoted(b, detail[key])
		separator = ','
	}
	return append(b, '}')
}

func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case unicode.IsPrint(r):
			b = append(b, string(r)...)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			b = fmt.Appendf(b, `\u%04x\u%04x`, high, low)
		default:
			b = fmt.Appendf(b, `\u%04x`, r)
		}
	}
	return append(b, '"')
}

// parseLine reads a line of AppendLine.
func parseLine(line []byte) (storage.AuditRecord, error) {
	var values map[string]json.RawMessage
	if err := json.Unmarshal(line, &values); err != nil {
		return storage.AuditRecord{}, fmt.Errorf("an audit line: %w", err)
	}
	var r storage.AuditRecord
	for _, f := range fields {
		value, ok := values[f.name]
		if !ok {
			continue
		}
		if err := f.parse(&r, value); err != nil {
			return storage.AuditRecord{}, fmt.Errorf("field %s of an audit line: %w", f.name, err)
		}
	}
	return r, nil
}

func (f field) parse(r *storage.AuditRecord, value json.RawMessage) error {
	switch {
	case f.text != nil:
		return json.Unmarshal(value, f.text(r))
	case f.number != nil:
		return json.Unmarshal(value, f.number(r))
	case f.detail != nil:
		return json.Unmarshal(value, f.detail(r))
	}
	var t time.Time
	if err := json.Unmarshal(value, &t); err != nil {
		return err
	}
	*f.time(r) = boundTime(t)
	return nil
}
