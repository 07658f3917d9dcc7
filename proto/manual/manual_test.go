package manual_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/stokerd/stoker/proto/manual"
)

func load(t *testing.T) *manual.Files {
	t.Helper()
	files, err := manual.Load()
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// What is described is what is served: the descriptors are those of the
// generated Go, and there are comments beside them.
func TestDescriptorsAreThoseOfTheGeneratedGo(t *testing.T) {
	files := load(t)
	described := 0
	files.Range(func(f protoreflect.FileDescriptor) bool {
		described++
		generated, err := protoregistry.GlobalFiles.FindFileByPath(f.Path())
		if err != nil {
			t.Errorf("%s: %v", f.Path(), err)
			return true
		}
		if f.SourceLocations().Len() == 0 {
			t.Errorf("%s has no comments", f.Path())
		}
		mine := protodesc.ToFileDescriptorProto(f)
		mine.SourceCodeInfo = nil
		if !proto.Equal(mine, protodesc.ToFileDescriptorProto(generated)) {
			t.Errorf("%s differs from the generated Go: run make generate", f.Path())
		}
		return true
	})
	protoregistry.GlobalFiles.RangeFilesByPackage("stoker.v1", func(f protoreflect.FileDescriptor) bool {
		described--
		return true
	})
	if described != 0 {
		t.Errorf("%d files more are described than generated: run make generate", described)
	}
}

// Files finds what is the API's own with comments, and what it leans on
// without.
func TestFind(t *testing.T) {
	files := load(t)
	for _, name := range []protoreflect.FullName{"stoker.v1.Credential", "google.protobuf.Timestamp", "google.rpc.Status"} {
		if found, err := files.FindDescriptorByName(name); err != nil || found.FullName() != name {
			t.Errorf("%s: %v, %v", name, found, err)
		}
	}
	for _, path := range []string{"stoker/v1/errors.proto", "google/protobuf/duration.proto"} {
		if found, err := files.FindFileByPath(path); err != nil || found.Path() != path {
			t.Errorf("%s: %v, %v", path, found, err)
		}
	}
	if _, err := files.FindFileByPath("none.proto"); !errors.Is(err, protoregistry.NotFound) {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := files.FindDescriptorByName("stoker.v1.None"); !errors.Is(err, protoregistry.NotFound) {
		t.Errorf("a name that is not there: %v", err)
	}
}

// elements calls visit with everything that a file declares.
func elements(f protoreflect.FileDescriptor, visit func(protoreflect.Descriptor)) {
	for i := range f.Services().Len() {
		s := f.Services().Get(i)
		visit(s)
		for j := range s.Methods().Len() {
			visit(s.Methods().Get(j))
		}
	}
	for i := range f.Enums().Len() {
		e := f.Enums().Get(i)
		visit(e)
		for j := range e.Values().Len() {
			visit(e.Values().Get(j))
		}
	}
	for i := range f.Messages().Len() {
		m := f.Messages().Get(i)
		visit(m)
		for j := range m.Fields().Len() {
			visit(m.Fields().Get(j))
		}
		if m.Messages().Len()-mapEntries(m)+m.Enums().Len() > 0 {
			visit(nil) // nothing is nested so far, and nothing here looks inside
		}
	}
}

// mapEntries counts the messages that the compiler made for map fields.
func mapEntries(m protoreflect.MessageDescriptor) (n int) {
	for i := range m.Messages().Len() {
		if m.Messages().Get(i).IsMapEntry() {
			n++
		}
	}
	return n
}

// Every service, call, message, field, enum and value has a comment of at
// least three words beyond its own name, in whole sentences: `grpcurl describe`
// has nothing else to teach the API with.
func TestEverythingHasAComment(t *testing.T) {
	seen := 0
	load(t).Range(func(f protoreflect.FileDescriptor) bool {
		elements(f, func(d protoreflect.Descriptor) {
			if d == nil {
				t.Errorf("%s nests declarations: teach elements to look inside", f.Path())
				return
			}
			seen++
			text := strings.TrimSpace(f.SourceLocations().ByDescriptor(d).LeadingComments)
			words := slices.DeleteFunc(strings.Fields(text), func(w string) bool {
				return strings.EqualFold(strings.Trim(w, ".,:"), string(d.Name()))
			})
			switch {
			case len(words) < 3:
				t.Errorf("%s: the comment %q says too little", d.FullName(), text)
			case !strings.HasSuffix(text, "."):
				t.Errorf("%s: the comment %q does not end a sentence", d.FullName(), text)
			}
		})
		return true
	})
	if seen < 400 {
		t.Errorf("only %d declarations were looked at", seen)
	}
}
