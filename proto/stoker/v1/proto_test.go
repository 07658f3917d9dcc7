package stokerv1_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	_ "github.com/stokerd/stoker/proto/stoker/v1"
)

// The local declaration of google.rpc.Status has the published fields.
func TestLocalStatusIsThePublishedOne(t *testing.T) {
	source, err := os.ReadFile("../../../third_party/google/rpc/status.proto")
	if err != nil {
		t.Fatal(err)
	}
	local := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^  ([\w. ]+) = (\d+);$`).FindAllStringSubmatch(string(source), -1) {
		local[m[1]+" = "+m[2]] = true
	}
	fields := (&statuspb.Status{}).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		kind := f.Kind().String()
		if f.Message() != nil {
			kind = string(f.Message().FullName())
		}
		if f.IsList() {
			kind = "repeated " + kind
		}
		if want := fmt.Sprintf("%s %s = %d", kind, f.Name(), f.Number()); !local[want] {
			t.Errorf("the local declaration lacks %q", want)
		}
	}
	if len(local) != fields.Len() {
		t.Errorf("the local declaration has %d fields, the published one %d", len(local), fields.Len())
	}
}

// secrets are the names that a field with a secret ends in.
var secrets = regexp.MustCompile(`(^|_)(password|secret_access_key|session_token|access_token|join_token)$`)

// Every field that holds a secret carries debug_redact, and no other does.
func TestSecretsAreRedacted(t *testing.T) {
	redacted := 0
	var walk func(protoreflect.MessageDescriptors)
	walk = func(messages protoreflect.MessageDescriptors) {
		for i := range messages.Len() {
			m := messages.Get(i)
			for j := range m.Fields().Len() {
				f := m.Fields().Get(j)
				options, ok := f.Options().(*descriptorpb.FieldOptions)
				got := ok && options.GetDebugRedact()
				if want := secrets.MatchString(string(f.Name())); got != want {
					t.Errorf("%s: debug_redact is %v", f.FullName(), got)
				}
				if got {
					redacted++
				}
			}
			walk(m.Messages())
		}
	}
	protoregistry.GlobalFiles.RangeFilesByPackage("stoker.v1", func(f protoreflect.FileDescriptor) bool {
		walk(f.Messages())
		return true
	})
	if redacted < 8 {
		t.Errorf("only %d fields are redacted", redacted)
	}
}

// Every service, call, message, field and enum value has a comment, so that
// `grpcurl describe` and editors teach the API. Fields whose name and place
// say everything may go without.
func TestProtosAreDocumented(t *testing.T) {
	files, err := filepath.Glob("*.proto")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	declaration := regexp.MustCompile(`^\s*(service|rpc|message|enum|[A-Z_0-9]+ = \d+;)`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(text), "\n")
		for i, line := range lines {
			if declaration.MatchString(line) && !strings.HasPrefix(strings.TrimSpace(lines[i-1]), "//") {
				t.Errorf("%s:%d: no comment on %s", file, i+1, strings.TrimSpace(line))
			}
		}
	}
}
