package stream

import "iter"

// relation is one of the ways in which streams are found when something
// changes.
type relation int

const (
	ofTenant relation = iota
	ofUser
	ofAgent
	ofSession
	ofCertificate
	relations
)

// index finds the streams of a tenant, user, agent, session or certificate.
// The streams of one key form a list through the streams themselves, so that
// adding and removing cost the same in a tenant with ten thousand streams as in
// one with one, and an index costs a stream two pointers.
type index struct {
	heads [relations]map[string]*Stream
}

// link is a stream's place in one list.
type link struct{ previous, next *Stream }

func newIndex() index {
	var x index
	for i := range x.heads {
		x.heads[i] = map[string]*Stream{}
	}
	return x
}

// add puts the stream under its keys. An empty key, such as the session of a
// stream without one, is not kept.
func (x *index) add(s *Stream) {
	for r := range relations {
		key := s.key(r)
		if key == "" {
			continue
		}
		head := x.heads[r][key]
		s.links[r] = link{next: head}
		if head != nil {
			head.links[r].previous = s
		}
		x.heads[r][key] = s
	}
}

// remove takes out a stream that was added.
func (x *index) remove(s *Stream) {
	for r := range relations {
		key := s.key(r)
		if key == "" {
			continue
		}
		l := s.links[r]
		s.links[r] = link{}
		if l.next != nil {
			l.next.links[r].previous = l.previous
		}
		switch {
		case l.previous != nil:
			l.previous.links[r].next = l.next
		case l.next != nil:
			x.heads[r][key] = l.next
		default:
			delete(x.heads[r], key)
		}
	}
}

// all gives the streams under a key. The index must not change meanwhile.
func (x *index) all(r relation, key string) iter.Seq[*Stream] {
	return func(yield func(*Stream) bool) {
		for s := x.heads[r][key]; s != nil; s = s.links[r].next {
			if !yield(s) {
				return
			}
		}
	}
}
