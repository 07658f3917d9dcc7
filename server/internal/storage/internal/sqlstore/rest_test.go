package sqlstore

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/storage"
)

// What is written by hand is what encoding/json would write, and every field
// of a record is in some cell.
func TestRestIsJSON(t *testing.T) {
	for _, special := range []string{"", "plain", `quoted " \ <>&`, "Ünïcode\u2028", "\x01\n"} {
		var r, back storage.AuditRecord
		fill(reflect.ValueOf(&r).Elem(), special)
		value, err := rest("rest", &r).put()
		if err != nil {
			t.Fatal(err)
		}
		var j restJSON
		if err := json.Unmarshal([]byte(value.(string)), &j); err != nil {
			t.Fatal(err)
		}
		if want, err := json.Marshal(j); err != nil || value != string(want) {
			t.Errorf("stored is\n%s, want\n%s", value, want)
		}
		from, to := auditRecords.cells(&r), auditRecords.cells(&back)
		for i := range from {
			value, err := from[i].encode()
			if err != nil {
				t.Fatal(err)
			}
			if err := to[i].Scan(value); err != nil {
				t.Fatal(err)
			}
		}
		if !reflect.DeepEqual(r, back) {
			t.Errorf("%q: read back as\n%+v, want\n%+v", special, back, r)
		}
	}
}

// fill gives every field a value, texts one of their own.
func fill(record reflect.Value, special string) {
	for i := range record.NumField() {
		name := record.Type().Field(i).Name
		switch field := record.Field(i).Addr().Interface().(type) {
		case *string:
			if *field = special; special != "" {
				*field += name
			}
		case *int64:
			*field = 7
		case *time.Time:
			*field = time.UnixMicro(int64(i)).UTC()
		case *map[string]string:
			*field = map[string]string{"key" + special: special}
		}
	}
}

func TestRestRefuses(t *testing.T) {
	for name, r := range map[string]storage.AuditRecord{
		"too long": {Actor: strings.Repeat("x", storage.MaxText+1)}, "no text": {PolicyHash: "a\xff"}, "nul": {Hash: "a\x00"},
		"detail": {Detail: map[string]string{"a": "\xff"}},
	} {
		if value, err := rest("rest", &r).put(); err == nil {
			t.Errorf("%s: stored as %.100v", name, value)
		}
	}
	var r storage.AuditRecord
	for _, stored := range []any{"", "[", `{"reason":1}`, int64(1)} {
		if err := rest("rest", &r).Scan(stored); (err == nil) != (stored == "") {
			t.Errorf("%v: %v", stored, err)
		}
	}
}
