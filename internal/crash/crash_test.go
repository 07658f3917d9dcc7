package crash_test

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/stokerd/stoker/internal/crash"
)

const childLines = "STOKER_TEST_CRASH_CHILD"

// The child says so many lines, or goes on for ever.
func TestMain(m *testing.M) {
	if text := os.Getenv(childLines); text != "" {
		most, err := strconv.Atoi(text)
		if err != nil {
			panic(err)
		}
		for i := 0; most < 0 || i < most; i++ {
			fmt.Println(i)
		}
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

func TestAfter(t *testing.T) {
	said := crash.After(t, 5, childLines+"=-1")
	if len(said) < 5 || said[0] != "0" || said[4] != "4" {
		t.Errorf("it said %q", said)
	}
}

// failing is a test that may fail.
type failing struct {
	testing.TB
	said string
}

func (f *failing) Helper() {}

func (f *failing) Fatalf(format string, args ...any) {
	f.said = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func TestAChildThatEndsByItself(t *testing.T) {
	f, ended := &failing{TB: t}, make(chan struct{})
	go func() {
		defer close(ended)
		crash.After(f, 5, childLines+"=3")
	}()
	<-ended
	if !strings.Contains(f.said, "by itself after 3 lines: exit status 1") {
		t.Errorf("it failed with %q", f.said)
	}
}
