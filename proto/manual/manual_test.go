package manual_test

import (
	"errors"
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
