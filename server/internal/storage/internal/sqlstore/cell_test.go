package sqlstore

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// What cannot be read into a field is an error that names the column, and
// never a panic.
func TestScanRefusesWhatDoesNotFit(t *testing.T) {
	var (
		b      bool
		n      int64
		s      string
		at     time.Time
		blobs  []byte
		items  []string
		detail map[string]string
		other  struct{}
	)
	for _, c := range []struct {
		cell   cell
		stored any
	}{
		{flag("column", &b), "true"}, {flag("column", &b), nil}, {number("column", &n), "1"}, {number("column", &n), nil},
		{text("column", &s), int64(1)}, {instant("column", &at), "2026-01-01"}, {blob("column", &blobs, 1), "text"},
		{list("column", &items), int64(1)}, {list("column", &items), "{}"}, {dictionary("column", &detail), "["},
		{cell{column: "column", field: &other}, "text"},
	} {
		err := c.cell.Scan(c.stored)
		if err == nil || !strings.Contains(err.Error(), "column") {
			t.Errorf("%T into %T: %v", c.stored, c.cell.field, err)
		}
	}
	if _, err := (cell{column: "column", field: &other}).put(); err == nil {
		t.Error("a field of an unknown type was stored")
	}
}

// The quick way to write a dictionary gives what encoding/json gives, or
// nothing.
func TestPlainJSON(t *testing.T) {
	for c := range rune(0x100) {
		d := map[string]string{"z": "", "a" + string(c): "b", "b": "c" + string(c) + "d"}
		got, ok := plainJSON(d)
		want, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if ok && got != string(want) {
			t.Errorf("%q: %s, want %s", c, got, want)
		}
		if letter := c >= 'a' && c <= 'z'; letter && !ok {
			t.Errorf("%q is not plain", c)
		}
	}
}
