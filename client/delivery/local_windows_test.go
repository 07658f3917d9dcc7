package delivery

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/Microsoft/go-winio"
	"golang.org/x/sys/windows"
)

// pipeName is the name of a pipe that is this test's own.
func pipeName(t *testing.T) string {
	return fmt.Sprintf(`%sstoker-%d-%s`, pipePrefix, os.Getpid(), strings.ReplaceAll(t.Name(), "/", "-"))
}

// underWine says whether these tests run on Wine, which lets a client connect to
// the instance that go-winio holds to keep the name, and lets two programs make
// the first instance of a pipe. There it takes up that instance.
func underWine(t *testing.T, pipe string) bool {
	t.Helper()
	if windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() != nil {
		return false
	}
	conn, err := winio.DialPipe(pipe, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return true
}

func TestPipe(t *testing.T) {
	pipe := pipeName(t)
	if _, err := AskLocal(t.Context(), pipe, "photos", 0); !errors.Is(err, ErrNoAgent) {
		t.Fatalf("without an agent: %v", err)
	}
	l, err := ListenLocal(pipe, newShelf(credentialOf("photos")), nil)
	if err != nil {
		t.Fatal(err)
	}
	wine := underWine(t, pipe)
	want := credentialOf("photos")
	for range 3 {
		c, err := AskLocal(t.Context(), pipe, "photos", time.Minute)
		if err != nil || c.SecretAccessKey != want.SecretAccessKey || c.SessionToken != want.SessionToken {
			t.Errorf("got %v, %v", c, err)
		}
	}
	if _, err := AskLocal(t.Context(), pipe, "nothing", 0); err == nil || !strings.Contains(err.Error(), "GRANT_UNKNOWN") {
		t.Errorf("an unknown grant: %v", err)
	}
	if !wine {
		if _, err := ListenLocal(pipe, newShelf(), nil); err == nil || !strings.Contains(err.Error(), "another agent") {
			t.Errorf("a second agent: %v", err)
		}
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := AskLocal(t.Context(), pipe, "photos", 0); !errors.Is(err, ErrNoAgent) {
		t.Errorf("after the end: %v", err)
	}
}

// TestPipeOfAStranger: a server that waits under the agent's name is not asked.
func TestPipeOfAStranger(t *testing.T) {
	pipe := pipeName(t)
	user, err := currentUser()
	if err != nil {
		t.Fatal(err)
	}
	// Everybody may connect, and another one than us owns it: the built-in group
	// of administrators or, where those are us, the group of all users.
	for _, owner := range []string{"BA", "BU"} {
		listener, err := winio.ListenPipe(pipe, &winio.PipeConfig{SecurityDescriptor: "O:" + owner + "D:P(A;;GA;;;WD)(A;;GA;;;" + user.String() + ")"})
		if err != nil {
			t.Logf("owner %s: %v", owner, err) // it takes a right to give a thing away
			continue
		}
		go func() { // AskLocal hangs up
			if conn, err := listener.Accept(); err == nil {
				_ = conn.Close()
			}
		}()
		if _, err := AskLocal(t.Context(), pipe, "photos", 0); !errors.Is(err, errStranger) {
			t.Errorf("owner %s: %v", owner, err)
		}
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestPipeNames(t *testing.T) {
	for _, name := range []string{"", "agent.sock", `C:\agent.sock`, pipePrefix, `\\server\pipe\stoker`} {
		if _, err := ListenLocal(name, newShelf(), nil); err == nil || !strings.Contains(err.Error(), "not the name of a pipe") {
			t.Errorf("%q: %v", name, err)
		}
	}
}
