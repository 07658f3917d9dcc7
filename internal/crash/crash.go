package crash

import (
	"bufio"
	"os"
	"os/exec"
	"testing"
)

// After runs the test binary with one more environment variable, NAME=VALUE,
// kills it when it has said so many lines on its standard output, and gives all
// that it has said: what it said before the kill may be more. A child that ends
// by itself fails the test.
func After(t testing.TB, lines int, variable string) (said []string) {
	t.Helper()
	child := exec.Command(os.Args[0]) //nolint:gosec // the test itself
	child.Env = append(os.Environ(), variable)
	child.Stderr = t.Output()
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	scanner := bufio.NewScanner(out)
	for len(said) < lines && scanner.Scan() {
		said = append(said, scanner.Text())
	}
	// A child that has ended cannot be killed, and says how by Wait.
	killed := child.Process.Kill()
	for scanner.Scan() {
		said = append(said, scanner.Text())
	}
	err = child.Wait()
	switch {
	case len(said) < lines:
		t.Fatalf("the child ended by itself after %d lines: %v", len(said), err)
	case killed != nil:
		t.Fatalf("the child was not killed: %v", killed)
	case err == nil:
		t.Fatal("the child ended well in spite of being killed")
	}
	return said
}
