//go:build unix

package delivery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stokerd/stoker/client"
)

const othersText = `# my keys
[default]
aws_access_key_id = AKIADEFAULT
aws_secret_access_key = abc

; work
[work]
  aws_access_key_id=AKIAWORK
	aws_secret_access_key=def # no newline at the end`

func sharedFile(t *testing.T, text string) (*SharedFile, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), ".aws", "credentials")
	if text != "" {
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s, err := NewSharedFile(file, map[string]string{"photos": "stoker-photos", "videos": "stoker-videos"})
	if err != nil {
		t.Fatal(err)
	}
	return s, file
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestSharedFile(t *testing.T) {
	for name, before := range map[string]string{"new": "", "with others": othersText} {
		t.Run(name, func(t *testing.T) {
			s, file := sharedFile(t, before)
			for range 3 { // the second and third replace
				for _, grant := range []string{"photos", "videos"} {
					if err := s.Put(credentialOf(grant)); err != nil {
						t.Fatal(err)
					}
				}
			}
			text := read(t, file)
			if !strings.HasPrefix(text, before) || strings.Count(text, "[stoker-photos]") != 1 {
				t.Errorf("the file:\n%s", text)
			}
			for _, line := range []string{"[stoker-photos]\n", "aws_access_key_id = ASIAPHOTOS\n", "aws_secret_access_key = secret-of-videos\n", "aws_session_token = token-of-videos\n", "# expires "} {
				if !strings.Contains(text, line) {
					t.Errorf("it lacks %q:\n%s", line, text)
				}
			}
			if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
			if err := s.Remove("photos"); err != nil {
				t.Fatal(err)
			}
			if text := read(t, file); strings.Contains(text, "PHOTOS") || !strings.Contains(text, "ASIAVIDEOS") {
				t.Errorf("after a revocation:\n%s", text)
			}
			if err := s.Clear(); err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimSuffix(read(t, file), "\n"); got != before {
				t.Errorf("at the end:\n%s\nbefore:\n%s", got, before)
			}
			leftovers, err := filepath.Glob(filepath.Join(filepath.Dir(file), ".*.*"))
			if err != nil || len(leftovers) > 0 {
				t.Errorf("left behind: %v, %v", leftovers, err)
			}
		})
	}
}

// TestSharedFileKeepsNeighbours: what stands after our profile stays where it
// is, the comment before the next header included.
func TestSharedFileKeepsNeighbours(t *testing.T) {
	s, file := sharedFile(t, "")
	if err := s.Put(credentialOf("photos")); err != nil {
		t.Fatal(err)
	}
	after := "\n# work\n[work]\naws_access_key_id = AKIAWORK\n"
	if err := os.WriteFile(file, []byte(read(t, file)+after), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(credentialOf("photos")); err != nil {
		t.Fatal(err)
	}
	if text := read(t, file); !strings.HasSuffix(text, after) {
		t.Errorf("after a renewal:\n%s", text)
	}
	if err := s.Clear(); err != nil {
		t.Fatal(err)
	}
	if text := read(t, file); text != after {
		t.Errorf("at the end:\n%s", text)
	}
}

func TestSharedFileForeignProfile(t *testing.T) {
	before := "[stoker-photos]\naws_access_key_id = AKIAMINE\n"
	s, file := sharedFile(t, before)
	if err := s.Put(credentialOf("photos")); !errors.Is(err, ErrForeignProfile) {
		t.Errorf("put: %v", err)
	}
	if err := s.Remove("photos"); err != nil {
		t.Errorf("remove: %v", err)
	}
	if text := read(t, file); text != before {
		t.Errorf("it was changed:\n%s", text)
	}
	if err := s.Put(credentialOf("music")); err == nil {
		t.Error("a grant without a profile is written")
	}
}

func TestSharedFileProfiles(t *testing.T) {
	for name, profiles := range map[string]map[string]string{
		"two grants on one profile": {"photos": "p", "videos": "p"},
		"a bracket":                 {"photos": "a]b"},
		"a newline":                 {"photos": "a\nb"},
		"nothing":                   {"photos": ""},
	} {
		if _, err := NewSharedFile("credentials", profiles); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestSharedFileLink(t *testing.T) {
	s, file := sharedFile(t, "")
	target := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.WriteFile(target, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, file); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(credentialOf("photos")); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(file); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v, %v", info.Mode(), err)
	}
	if !strings.Contains(read(t, target), "ASIAPHOTOS") {
		t.Error("the target was not written")
	}
}

// TestSharedFileTwoWriters: two agents on one file lose nothing of each other,
// and a reader never sees a part.
func TestSharedFileTwoWriters(t *testing.T) {
	s, file := sharedFile(t, othersText)
	other, err := NewSharedFile(file, map[string]string{"music": "stoker-music"})
	if err != nil {
		t.Fatal(err)
	}
	var writers sync.WaitGroup
	for i := range 50 {
		writers.Go(func() {
			c := credentialOf("photos")
			c.AccessKeyID = fmt.Sprintf("ASIA%d", i)
			if err := errors.Join(s.Put(c), other.Put(credentialOf("music"))); err != nil {
				t.Error(err)
			}
		})
		if !strings.HasPrefix(read(t, file), othersText) {
			t.Fatal("a reader saw a part")
		}
	}
	writers.Wait()
	if text := read(t, file); !strings.Contains(text, "[stoker-music]") || strings.Count(text, "[stoker-photos]") != 1 {
		t.Errorf("the file:\n%s", text)
	}
}

// TestSharedFileFull fills the disk, in the shape of a limit on the size of
// files: the old file stays whole.
func TestSharedFileFull(t *testing.T) {
	_, file := sharedFile(t, othersText)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), self)
	command.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", childMode+"=full:"+file)
	out, err := command.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "file too large") {
		t.Fatalf("%v: %s", err, out)
	}
	if text := read(t, file); text != othersText {
		t.Errorf("the file:\n%s", text)
	}
	entries, err := os.ReadDir(filepath.Dir(file))
	if err != nil || len(entries) != 2 { // the file and its lock
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// writeFull is TestSharedFileFull's child. It exits with 0 if the write failed.
func writeFull(file string) int {
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 100, Max: 100}); err != nil {
		fmt.Println(err)
		return 1
	}
	s, err := NewSharedFile(file, map[string]string{"photos": "stoker-photos"})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	err = s.Put(credentialOf("photos"))
	fmt.Println(err)
	if err == nil {
		return 1
	}
	return 0
}

func TestSharedFileFollow(t *testing.T) {
	s, file := sharedFile(t, "")
	supply := newShelf(credentialOf("photos"))
	supply.fail("videos", client.ErrNoCredentialYet, nil)
	changed := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	ended, looks := make(chan error), make(chan error)
	go func() {
		ended <- s.Follow(ctx, supply, changed, func(err error) { looks <- err })
	}()
	look := func() {
		t.Helper()
		if err := <-looks; err != nil {
			t.Errorf("it tells %v", err)
		}
	}
	look() // at the start
	supply.put(credentialOf("videos"))
	supply.fail("photos", client.ErrRevoked, nil)
	changed <- struct{}{}
	look()
	if text := read(t, file); !strings.Contains(text, "ASIAVIDEOS") || strings.Contains(text, "PHOTOS") {
		t.Errorf("the file:\n%s", text)
	}
	if err := os.WriteFile(file, []byte("[stoker-videos]\naws_access_key_id = theirs\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	changed <- struct{}{}
	if err := <-looks; !errors.Is(err, ErrForeignProfile) || !strings.Contains(err.Error(), file) {
		t.Errorf("of a file that it cannot write it tells %v", err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if text := read(t, file); strings.TrimSpace(text) != "" {
		t.Errorf("at the end:\n%s", text)
	}
}

func TestWriteProcess(t *testing.T) {
	var out bytes.Buffer
	c := credentialOf("photos")
	if err := WriteProcess(&out, c); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got["Version"] != 1.0 || got["AccessKeyId"] != c.AccessKeyID || got["SecretAccessKey"] != c.SecretAccessKey ||
		got["SessionToken"] != c.SessionToken || got["Expiration"] != c.Expires.Format(time.RFC3339) || len(got) != 5 {
		t.Errorf("got %v", got)
	}
}

// FuzzProfiles puts a profile into any text and takes it out: the text is as
// before, but for an ending newline.
func FuzzProfiles(f *testing.F) {
	f.Add(othersText)
	f.Add("[stoker-photos]\nx=y\n")
	f.Add("[stoker-photos]\n" + mark + "\n[a]\n")
	f.Add("\r\n[a]\r\nb = c\r\n\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		c := credentialOf("photos")
		put, err := putProfile([]byte(text), "stoker-photos", c)
		if err != nil {
			return // somebody else's profile
		}
		if _, _, found := findProfile([]byte(text), "stoker-photos"); found {
			return // ours from before: it is replaced
		}
		again, err := putProfile(put, "stoker-photos", c)
		if err != nil || !bytes.Equal(put, again) {
			t.Errorf("not the same twice: %v\n%q\n%q", err, put, again)
		}
		dropped := dropProfile(put, "stoker-photos")
		if got := strings.TrimSuffix(string(dropped), "\n"); got != strings.TrimSuffix(text, "\n") {
			t.Errorf("%q became %q", text, dropped)
		}
	})
}
