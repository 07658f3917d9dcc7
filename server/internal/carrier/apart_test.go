package carrier

import (
	"errors"
	"runtime"
	"strings"
	"testing"
)

func TestApart(t *testing.T) {
	failure := errors.New("no")
	if err := Apart(func() error { return failure }); !errors.Is(err, failure) {
		t.Errorf("got %v", err)
	}
	for what, f := range map[string]func() error{
		"panic": func() error { panic("canary") },
		"exit":  func() error { runtime.Goexit(); return nil },
	} {
		func() {
			defer func() {
				p, _ := recover().(string)
				if p == "" || what == "panic" && (!strings.Contains(p, "canary") || !strings.Contains(p, "apart_test.go")) {
					t.Errorf("%s: recovered %q", what, p)
				}
			}()
			err := Apart(f)
			t.Errorf("%s: returned %v", what, err)
		}()
	}
}
