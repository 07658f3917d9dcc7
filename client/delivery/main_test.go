//go:build unix

package delivery

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// childMode makes this binary a child of a test instead of a test.
const childMode = "DELIVERY_TEST_CHILD"

func TestMain(m *testing.M) {
	if mode := os.Getenv(childMode); mode != "" {
		os.Exit(child(mode))
	}
	goleak.VerifyTestMain(m)
}

// child is what the tests' commands do.
func child(mode string) int {
	name, argument, _ := strings.Cut(mode, ":")
	switch name {
	case "exit":
		code, err := strconv.Atoi(argument)
		if err != nil {
			return 99
		}
		return code
	case "env":
		for _, entry := range os.Environ() {
			fmt.Println(entry)
		}
		return 0
	case "die":
		if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
			return 99
		}
		<-time.After(time.Minute)
	case "count":
		return countSignals()
	case "run":
		return runExec(argument)
	case "full":
		return writeFull(argument)
	}
	return 99
}

// countSignals tells which signals come until the first SIGTERM, and exits with
// 42.
func countSignals() int {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1)
	fmt.Println("ready")
	for s := range signals {
		fmt.Println("got", s)
		if s == syscall.SIGTERM {
			return 42
		}
	}
	return 99
}
