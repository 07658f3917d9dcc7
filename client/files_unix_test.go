//go:build unix

package client

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// replacer is the environment variable that makes the test below the process
// which replaces pairs in that directory until it is killed.
const replacer = "CLIENT_TEST_REPLACER"

// A process that replaces the pair without end is killed again and again, and
// watched meanwhile: there is a pair that fits at every look.
func TestKilledWhileReplacing(t *testing.T) {
	if dir := os.Getenv(replacer); dir != "" {
		replaceForEver(t, FilesIn(dir))
	}
	files := FilesIn(t.TempDir())
	last := install(t, newSigner(t), files)
	for round := range 15 {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilledWhileReplacing$")
		child.Env = append(os.Environ(), replacer+"="+filepath.Dir(files.Key))
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatal("it does not begin: ", err)
		}
		// It is killed that long after the first change that is seen.
		after, changed := time.Duration(7*round)*time.Millisecond, time.Time{}
		for begun := time.Now(); changed.IsZero() || time.Since(changed) < after; {
			if time.Since(begun) > time.Minute {
				t.Fatal("it replaces nothing")
			}
			p := lookAtPair(t, files)
			if p.thumbprint != last.thumbprint && changed.IsZero() {
				changed = time.Now()
			}
			last = p
		}
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = child.Wait() // it was killed
		if _, err := loadPair(files.Certificate, files.Key); err != nil {
			t.Fatal(err)
		}
		if err := files.tidy(); err != nil {
			t.Fatal(err)
		}
		if _, err := tls.LoadX509KeyPair(files.Certificate, files.Key); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(files.Key))
	if err != nil || len(entries) != 3 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// lookAtPair reads a pair that is replaced meanwhile. A look fails rightly if it
// takes so long that the pair is replaced twice.
func lookAtPair(t *testing.T, files Files) pair {
	t.Helper()
	for {
		before, err := os.ReadFile(files.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		p, failed := loadPair(files.Certificate, files.Key)
		if failed == nil {
			return p
		}
		after, err := os.ReadFile(files.Certificate)
		if err != nil || bytes.Equal(before, after) {
			t.Fatal(failed, err)
		}
	}
}

func replaceForEver(t *testing.T, files Files) {
	authority := newSigner(t)
	if _, err := os.Stdout.WriteString("begun\n"); err != nil {
		t.Fatal(err)
	}
	for {
		asked, certificate := newPair(t, authority)
		r, err := files.prepare(asked.key)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.commit(certificate); err != nil {
			t.Fatal(err)
		}
	}
}
