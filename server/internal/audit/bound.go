package audit

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/stokerd/stoker/server/internal/storage"
)

// What a record holds may have been typed by a stranger. These bounds keep one
// record small whatever was sent, and make it storable: a record that storage
// refuses would take the others of its batch with it.
const (
	// maxText bounds each text, and each key and value of the detail, in
	// bytes. Storage looks records up by most of them.
	maxText = storage.MaxKey
	// maxDetail bounds the detail as storage keeps it, in JSON, in bytes.
	maxDetail = storage.MaxText / 2
	// DroppedKey is the detail that counts the entries which were left out.
	DroppedKey = "_dropped"
)

// bound gives the record as it can be stored: nothing shared with the caller's,
// times in UTC and whole microseconds, texts valid and cut.
func bound(r storage.AuditRecord) storage.AuditRecord {
	boundIn(&r)
	return r
}

// boundIn is bound in place.
func boundIn(r *storage.AuditRecord) {
	for _, f := range fields {
		switch {
		case f.text != nil:
			at := f.text(r)
			*at = boundText(*at)
		case f.time != nil:
			at := f.time(r)
			*at = boundTime(*at)
		case f.detail != nil:
			at := f.detail(r)
			*at = boundDetail(*at)
		}
	}
}

func boundTime(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return time.UnixMicro(t.UnixMicro()).UTC()
}

// boundText replaces what no database keeps (bytes that are no UTF-8 by
// U+FFFD, NUL by U+2400) and cuts what is too long, saying from how many bytes
// it was cut. Other control characters stay.
func boundText(s string) string {
	if len(s) <= maxText && utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 {
		return s
	}
	if len(s) > maxText {
		mark := fmt.Sprintf("…[cut from %d bytes]", len(s))
		// Only what may remain is looked at: the text may be very long. A
		// replacement grows, so there is a second cut after it.
		s = strings.ToValidUTF8(s[:maxText], "\uFFFD")
		return cut(strings.ReplaceAll(s, "\x00", "\u2400"), maxText-len(mark)) + mark
	}
	whole := strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\u2400")
	if len(whole) > maxText {
		mark := fmt.Sprintf("…[cut from %d bytes]", len(s))
		return cut(whole, maxText-len(mark)) + mark
	}
	return whole
}

// cut gives the longest prefix of at most n bytes that ends with a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// boundDetail keeps entries in the order of their keys until they are too much
// for storage, and counts the rest.
func boundDetail(detail map[string]string) map[string]string {
	if len(detail) == 0 {
		return nil
	}
	if small(detail) {
		return maps.Clone(detail)
	}
	kept := make(map[string]string, len(detail))
	room := maxDetail
	dropped := 0
	for _, key := range slices.Sorted(maps.Keys(detail)) {
		k, v := boundText(key), boundText(detail[key])
		size := encodedSize(k) + encodedSize(v) + len(`:,`)
		if _, taken := kept[k]; taken || size > room {
			dropped++
			continue
		}
		room -= size
		kept[k] = v
	}
	if dropped > 0 {
		kept[DroppedKey] = strconv.Itoa(dropped)
	}
	return kept
}

// small says of most details that they are within all bounds as they are.
func small(detail map[string]string) bool {
	room := maxDetail
	for k, v := range detail {
		if !plain(k) || !plain(v) || len(k) > maxText || len(v) > maxText {
			return false
		}
		room -= len(k) + len(v) + len(`"":"",`)
	}
	return room >= 0
}

// encodedSize is the length of the text in storage's JSON.
func encodedSize(s string) int {
	if plain(s) {
		return len(s) + len(`""`)
	}
	encoded, err := json.Marshal(s)
	if err != nil {
		return maxDetail + 1 // a string cannot fail; if it did, it would be dropped
	}
	return len(encoded)
}

// plain says of most texts that JSON has no escapes for them.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return false
		}
	}
	return true
}
