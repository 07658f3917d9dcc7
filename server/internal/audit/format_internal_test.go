package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
)

// full is a record with every field set, each to a value of its own.
func full(t testing.TB) storage.AuditRecord {
	var r storage.AuditRecord
	v := reflect.ValueOf(&r).Elem()
	for i := range v.NumField() {
		switch field := v.Field(i).Addr().Interface().(type) {
		case *string:
			*field = fmt.Sprint("text ", i)
		case *int64:
			*field = int64(i)
		case *time.Time:
			*field = time.UnixMicro(int64(1e15) + int64(i)).UTC()
		case *map[string]string:
			*field = map[string]string{"k1": "v1", "k2": "v2"}
		default:
			t.Fatalf("field %s has a type that the encoding does not know", v.Type().Field(i).Name)
		}
	}
	return r
}

// Changing any one field of the struct changes the hash: a field that is added
// to it and forgotten here would not be protected.
func TestHashCoversEveryField(t *testing.T) {
	if n := reflect.TypeFor[storage.AuditRecord]().NumField(); n != len(fields) {
		t.Errorf("the record has %d fields, the encoding %d", n, len(fields))
	}
	want := Hash(full(t))
	structure := reflect.TypeFor[storage.AuditRecord]()
	for i := range structure.NumField() {
		name := structure.Field(i).Name
		for how, change := range changes(reflect.New(structure.Field(i).Type).Interface()) {
			r := full(t)
			change(reflect.ValueOf(&r).Elem().Field(i).Addr().Interface())
			if got := Hash(r); (got == want) != (name == "Hash") {
				t.Errorf("%s %s: hash equal: %v", name, how, got == want)
			}
		}
	}
}

// changes are ways to change a field of a type.
func changes(field any) map[string]func(any) {
	switch field.(type) {
	case *string:
		return map[string]func(any){
			"emptied":  func(f any) { *f.(*string) = "" },
			"extended": func(f any) { *f.(*string) += "\x00" },
		}
	case *int64:
		return map[string]func(any){"less": func(f any) { *f.(*int64)-- }, "negated": func(f any) { *f.(*int64) *= -1 }}
	case *time.Time:
		return map[string]func(any){
			"a microsecond on": func(f any) { *f.(*time.Time) = f.(*time.Time).Add(time.Microsecond) },
			"zero":             func(f any) { *f.(*time.Time) = time.Time{} },
			"the epoch":        func(f any) { *f.(*time.Time) = time.Unix(0, 0) },
		}
	default:
		detail := func(m map[string]string) func(any) {
			return func(f any) { *f.(*map[string]string) = m }
		}
		return map[string]func(any){
			"removed": detail(nil), "less": detail(map[string]string{"k1": "v1"}),
			"more":    detail(map[string]string{"k1": "v1", "k2": "v2", "": ""}),
			"swapped": detail(map[string]string{"k1": "v2", "k2": "v1"}),
			"shifted": detail(map[string]string{"k1v": "1", "k2": "v2"}),
		}
	}
}

// No two different records share an encoding because a text ends where the
// next begins.
func TestEncodingIsUnambiguous(t *testing.T) {
	a, b := storage.AuditRecord{Tenant: "ab", UserID: "c"}, storage.AuditRecord{Tenant: "a", UserID: "bc"}
	if Hash(a) == Hash(b) {
		t.Error("a byte moved from one field to the next unnoticed")
	}
	nilled, empty := storage.AuditRecord{}, storage.AuditRecord{Detail: map[string]string{}}
	if Hash(nilled) != Hash(empty) {
		t.Error("storage may give an empty detail back as none")
	}
}

func TestSealCoversEveryField(t *testing.T) {
	s, err := newSealer(secret.New(strings.Repeat("k", KeySize)), nil)
	if err != nil {
		t.Fatal(err)
	}
	sealed := s.seal(storage.AuditHead{Writer: "w", Sequence: 7, Hash: "h", First: 3, FirstPrevHash: "p"})
	if !s.sealed(sealed) {
		t.Fatal("its own seal does not fit")
	}
	structure := reflect.TypeFor[storage.AuditHead]()
	for i := range structure.NumField() {
		h := sealed
		h.Seal = bytes.Clone(sealed.Seal)
		switch field := reflect.ValueOf(&h).Elem().Field(i).Addr().Interface().(type) {
		case *string:
			*field += "x"
		case *int64:
			*field++
		case *[]byte:
			(*field)[0] ^= 1
		}
		if s.sealed(h) {
			t.Errorf("%s is not under the seal", structure.Field(i).Name)
		}
	}
	if h := sealed; true {
		h.Seal = nil
		if s.sealed(h) {
			t.Error("no seal is taken for one")
		}
	}
	other, err := newSealer(secret.New(strings.Repeat("o", KeySize)), nil)
	if err != nil {
		t.Fatal(err)
	}
	if other.sealed(sealed) {
		t.Error("another key's seal fits")
	}
	for _, size := range []int{0, KeySize - 1, KeySize + 1} {
		if _, err := newSealer(secret.New(strings.Repeat("k", size)), nil); err == nil {
			t.Errorf("a key of %d bytes was taken", size)
		}
	}
}

func TestBoundText(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"plain":          {"ann@acme", "ann@acme"},
		"control stays":  {"a\r\n\x1b[31mb", "a\r\n\x1b[31mb"},
		"NUL":            {"a\x00b", "a\u2400b"},
		"no UTF-8":       {"a\xff\xfeb", "a\uFFFDb"},
		"as long as may": {strings.Repeat("x", 512), strings.Repeat("x", 512)},
		"too long":       {strings.Repeat("x", 513), strings.Repeat("x", 489) + "…[cut from 513 bytes]"},
		"very long":      {strings.Repeat("x", 1<<20), strings.Repeat("x", 485) + "…[cut from 1048576 bytes]"},
		// 488 bytes are left, in which 162 characters of 3 bytes fit.
		"cut between characters": {strings.Repeat("€", 1000), strings.Repeat("€", 162) + "…[cut from 3000 bytes]"},
		"grown by replacement":   {strings.Repeat("\x00", 300), strings.Repeat("\u2400", 163) + "…[cut from 300 bytes]"},
	} {
		if got := boundText(c.in); got != c.want {
			t.Errorf("%s: %d bytes, ends in %q; want %d, %q", name, len(got), got[max(0, len(got)-30):], len(c.want), c.want[max(0, len(c.want)-30):])
		}
	}
}

func TestBoundDetail(t *testing.T) {
	if got := boundDetail(map[string]string{}); got != nil {
		t.Errorf("empty: %v", got)
	}
	huge := map[string]string{}
	for i := range 1000 {
		huge[fmt.Sprintf("key %04d", i)] = strings.Repeat("\x01", 400)
	}
	got := boundDetail(huge)
	encoded, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if len(encoded) > storage.MaxText || len(got) < 2 || got["key 0000"] != strings.Repeat("\x01", 400) {
		t.Errorf("%d entries of %d bytes", len(got), len(encoded))
	}
	if dropped := got[DroppedKey]; dropped != fmt.Sprint(1000-len(got)+1) {
		t.Errorf("%d kept, dropped %q", len(got), dropped)
	}
	// Two keys that become one: the first in order stays.
	clash := boundDetail(map[string]string{"k\xff": "second", "k\xfe": "first"})
	if want := map[string]string{"k\uFFFD": "first", DroppedKey: "1"}; !reflect.DeepEqual(clash, want) {
		t.Errorf("clash: %v", clash)
	}
}

func FuzzBound(f *testing.F) {
	f.Add("ann", "key", "value")
	f.Add(strings.Repeat("\xff", 600), "\x00", strings.Repeat("€", 400))
	f.Fuzz(func(t *testing.T, login, k, v string) {
		once := bound(storage.AuditRecord{Login: login, Detail: map[string]string{k: v}})
		for _, s := range []string{once.Login, fmt.Sprint(once.Detail)} {
			if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
				t.Errorf("not storable: %q", s)
			}
		}
		if len(once.Login) > maxText {
			t.Errorf("%d bytes", len(once.Login))
		}
		if twice := bound(once); !reflect.DeepEqual(once, twice) {
			t.Errorf("bound again: %v, %v", once, twice)
		}
	})
}

func TestLine(t *testing.T) {
	r := storage.AuditRecord{
		Writer: "w", Sequence: 3, Time: time.Date(2026, 11, 23, 13, 0, 0, 1000, time.UTC), Event: "session.refused",
		Login:  "a\"\\\n\x1b[31m\x7f\u0085\u009b\u202e\U000e0001é€",
		Detail: map[string]string{"z": "1", "a": "2"}, Hash: "h",
	}
	want := `{"writer":"w","sequence":3,"time":"2026-11-23T13:00:00.000001Z","event":"session.refused",` +
		`"login":"a\"\\\u000a\u001b[31m\u007f\u0085\u009b\u202e\udb40\udc01é€","detail":{"a":"2","z":"1"},"hash":"h"}` + "\n"
	if got := string(AppendLine([]byte("x"), r)); got != "x"+want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	everything, err := parseLine(AppendLine(nil, full(t)))
	if err != nil || !reflect.DeepEqual(everything, full(t)) {
		t.Errorf("%+v, %v", everything, err)
	}
	for _, line := range []string{"", "{", `{"writer":3}`, `{"time":"yesterday"}`, `{"detail":[]}`, `{"sequence":"1"}`} {
		if r, err := parseLine([]byte(line)); err == nil {
			t.Errorf("%q was read as %+v", line, r)
		}
	}
}

// A line is one line of printable characters, and says exactly what the record
// does: its hash can be computed from it.
func FuzzLine(f *testing.F) {
	f.Add("ann", "key", "value", int64(1))
	f.Add("\u2028\u200b\x00\xff", "\"", "\\", int64(-1))
	f.Fuzz(func(t *testing.T, login, k, v string, micros int64) {
		r := bound(storage.AuditRecord{
			Sequence: 1, Time: time.UnixMicro(micros % 1e17), Login: login, Detail: map[string]string{k: v},
		})
		line := AppendLine(nil, r)
		if !json.Valid(line) || bytes.Count(line, []byte{'\n'}) != 1 {
			t.Fatalf("no line: %q", line)
		}
		for _, c := range string(line[:len(line)-1]) {
			if !unicode.IsPrint(c) {
				t.Errorf("%q holds %U", line, c)
			}
		}
		back, err := parseLine(line)
		if err != nil || Hash(back) != Hash(r) {
			t.Errorf("%q: %+v, %v", line, back, err)
		}
	})
}

// A clock that is set back by an instant does not disturb the order of
// records; a larger step is told as it is.
func TestStamp(t *testing.T) {
	last := time.Date(2026, 11, 23, 13, 0, 0, 0, time.UTC)
	for step, want := range map[time.Duration]time.Duration{
		time.Microsecond: time.Microsecond, time.Nanosecond: 0, 0: 0, -time.Millisecond: 0,
		-time.Second + time.Microsecond: 0, -time.Second: -time.Second, -time.Hour: -time.Hour, time.Hour: time.Hour,
	} {
		if got := (chain{time: last}).stamp(last.Add(step)); !got.Equal(last.Add(want)) {
			t.Errorf("a step of %v gave %v", step, got.Sub(last))
		}
	}
}
