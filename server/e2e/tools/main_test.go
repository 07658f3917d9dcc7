//go:build unix

package tools_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// programs is where TestMain builds stoker-agent.
var programs string

// atOnce is how many cells run at the same time. They wait most of their time,
// for credentials to come and go.
const atOnce = "20"

func TestMain(m *testing.M) {
	// The test program itself stands for programs that use aws-sdk-go-v2.
	if os.Getenv(workerVariable) != "" {
		os.Exit(goWorker())
	}
	os.Exit(func() int {
		if err := workInMemory(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		dir, err := os.MkdirTemp("", "stoker-tools-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(dir) }()
		programs = dir
		out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "stoker-agent"), "../../../cmd/stoker-agent").CombinedOutput()
		if err != nil {
			fmt.Fprintf(os.Stderr, "building stoker-agent: %v\n%s", err, out)
			return 1
		}
		flag.Parse()
		if err := flag.Set("test.parallel", atOnce); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// workInMemory puts temporary files into memory where the machine has plenty:
// the tools write gigabytes in a minute, and MinIO and the broker's audit trail
// wait for the disk at each step.
func workInMemory() error {
	const shm, enough = "/dev/shm", 4 << 30
	var disk syscall.Statfs_t
	if err := syscall.Statfs(shm, &disk); err != nil || disk.Bavail*uint64(disk.Bsize) < enough {
		return nil //nolint:nilerr // the disk will do
	}
	return os.Setenv("TMPDIR", shm)
}
