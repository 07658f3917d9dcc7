package stokerv1_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	_ "github.com/stokerd/stoker/proto/stoker/v1"
)

// The local declarations of google.rpc have the published fields.
func TestLocalDeclarationsAreThePublishedOnes(t *testing.T) {
	for file, messages := range map[string][]proto.Message{
		"status.proto":        {&statuspb.Status{}},
		"error_details.proto": {&errdetails.ErrorInfo{}, &errdetails.RetryInfo{}, &errdetails.RequestInfo{}},
	} {
		source, err := os.ReadFile("../../../third_party/google/rpc/" + file)
		if err != nil {
			t.Fatal(err)
		}
		local := map[string]bool{}
		message := ""
		for line := range strings.Lines(string(source)) {
			if name, ok := strings.CutPrefix(line, "message "); ok {
				message, _, _ = strings.Cut(name, " ")
			}
			if m := regexp.MustCompile(`^  ([\w., <>]+) = (\d+);$`).FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
				local[message+": "+m[1]+" = "+m[2]] = true
			}
		}
		published := 0
		for _, m := range messages {
			d := m.ProtoReflect().Descriptor()
			published += d.Fields().Len()
			for i := range d.Fields().Len() {
				f := d.Fields().Get(i)
				if want := fmt.Sprintf("%s: %s %s = %d", d.Name(), typeOf(f), f.Name(), f.Number()); !local[want] {
					t.Errorf("%s lacks %q", file, want)
				}
			}
		}
		if len(local) != published {
			t.Errorf("%s has %d fields, the published one %d", file, len(local), published)
		}
	}
}

// typeOf is a field's type as a proto writes it.
func typeOf(f protoreflect.FieldDescriptor) string {
	kind := f.Kind().String()
	if f.Message() != nil {
		kind = string(f.Message().FullName())
	}
	switch {
	case f.IsMap():
		return fmt.Sprintf("map<%s, %s>", typeOf(f.MapKey()), typeOf(f.MapValue()))
	case f.IsList():
		return "repeated " + kind
	}
	return kind
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
