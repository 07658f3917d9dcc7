package watch

import (
	"encoding/binary"
	"errors"
	"time"
)

// A Position is where a watch stands, in a form that can be kept and sent. The
// zero Position is none.
//
// It holds a moment, the floor, and for each writer with a later record the
// sequence to go on with. Of all other writers everything up to the floor has
// been told. So it names few writers, although a trail has one for every start
// of every broker. It relies on clocks of replicas that differ by less than
// window: STS refuses a broker's signatures long before.
type Position string

const (
	// format is the first byte of a position.
	format = 1
	// maxWriters bounds how many writers a position may name.
	maxWriters = 128
	// maxWriter bounds a writer's id, in bytes.
	maxWriter = 64
)

var errPosition = errors.New("watch: the position is damaged")

// bookmark is a position that is read.
type bookmark struct {
	floor time.Time
	next  map[string]int64
}

func (b bookmark) position() Position {
	out := append(make([]byte, 0, 16+48*len(b.next)), format)
	out = binary.AppendVarint(out, b.floor.UnixMicro())
	out = binary.AppendUvarint(out, uint64(len(b.next)))
	for writer, next := range b.next {
		out = binary.AppendUvarint(out, uint64(len(writer)))
		out = append(out, writer...)
		out = binary.AppendVarint(out, next)
	}
	return Position(out)
}

// open reads a position.
func (p Position) open() (bookmark, error) {
	r := reader{rest: []byte(p), whole: len(p) > 0 && p[0] == format}
	if !r.whole {
		return bookmark{}, errPosition
	}
	r.rest = r.rest[1:]
	b := bookmark{floor: time.UnixMicro(r.varint()).UTC(), next: map[string]int64{}}
	count := r.uvarint()
	for range min(count, maxWriters) {
		writer := r.text()
		b.next[writer] = r.varint()
	}
	if !r.whole || len(r.rest) > 0 || count > maxWriters || uint64(len(b.next)) != count {
		return bookmark{}, errPosition
	}
	return b, nil
}

// reader takes fields off the front; whole is false once one was not there.
type reader struct {
	rest  []byte
	whole bool
}

func (r *reader) take(n int) []byte {
	if n <= 0 || n > len(r.rest) {
		r.whole, r.rest = false, nil
		return nil
	}
	taken := r.rest[:n]
	r.rest = r.rest[n:]
	return taken
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.rest)
	r.take(n)
	return v
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	r.take(n)
	return v
}

func (r *reader) text() string {
	length := r.uvarint()
	if length > maxWriter {
		r.whole, r.rest = false, nil
		return ""
	}
	return string(r.take(int(length)))
}
