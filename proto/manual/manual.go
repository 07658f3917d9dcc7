// Package manual has the API's descriptors together with their comments, which
// generated Go leaves out: what server reflection answers with, so that
// `grpcurl describe` teaches the API.
//
// It owns nothing but the file that `make generate` makes of the protos, and
// registers nothing: messages keep their generated types.
package manual

import (
	_ "embed"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	// The generated files import what the protos do, such as timestamps, and
	// those are found in the global registry.
	_ "github.com/stokerd/stoker/proto/stoker/v1"
)

//go:embed stoker.binpb
var described []byte

// Files finds the descriptors of the API with their comments, and all others
// that the program has without. It is safe for concurrent use.
type Files struct{ own protoregistry.Files }

// Load reads the descriptors. An error means that the embedded file is broken.
func Load() (*Files, error) {
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(described, &set); err != nil {
		return nil, fmt.Errorf("the API's descriptors: %w", err)
	}
	files := &Files{}
	for _, f := range set.GetFile() { // each after those that it imports
		if !strings.HasPrefix(f.GetName(), "stoker/") {
			// The set is whole, for tools in other languages. Here what the API
			// imports is the program's own.
			continue
		}
		file, err := protodesc.NewFile(f, files)
		if err == nil {
			err = files.own.RegisterFile(file)
		}
		if err != nil {
			return nil, fmt.Errorf("the API's descriptors: %w", err)
		}
	}
	return files, nil
}

// Range calls f for each file of the API until it returns false.
func (f *Files) Range(visit func(protoreflect.FileDescriptor) bool) { f.own.RangeFiles(visit) }

// FindFileByPath implements protodesc.Resolver.
func (f *Files) FindFileByPath(path string) (protoreflect.FileDescriptor, error) {
	found, err := f.own.FindFileByPath(path)
	if errors.Is(err, protoregistry.NotFound) {
		return protoregistry.GlobalFiles.FindFileByPath(path)
	}
	return found, err
}

// FindDescriptorByName implements protodesc.Resolver.
func (f *Files) FindDescriptorByName(name protoreflect.FullName) (protoreflect.Descriptor, error) {
	found, err := f.own.FindDescriptorByName(name)
	if errors.Is(err, protoregistry.NotFound) {
		return protoregistry.GlobalFiles.FindDescriptorByName(name)
	}
	return found, err
}
