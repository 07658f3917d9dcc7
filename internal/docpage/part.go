package docpage

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/google/go-cmp/cmp"
)

// writing is held while a page is read and written, as several tests may each
// keep a part of it at once.
var writing sync.Mutex

// Keep compares what the page, a file's path, has between the lines
// "<!-- part -->" and "<!-- /part -->" with what it should have, and gives an
// error where they differ. With STOKER_UPDATE_DOCS set, it writes the part anew
// instead.
func Keep(page, part, want string) error {
	writing.Lock()
	defer writing.Unlock()
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	start, end := "<!-- "+part+" -->\n", "<!-- /"+part+" -->\n"
	before, rest, opened := strings.Cut(string(text), start)
	got, after, closed := strings.Cut(rest, end)
	switch {
	case !opened || !closed:
		return fmt.Errorf("%s has no place for its part %q", page, part)
	case got == want:
		return nil
	case os.Getenv("STOKER_UPDATE_DOCS") == "":
		return fmt.Errorf("%s is stale; run the test with STOKER_UPDATE_DOCS=1 and commit (-is, +should be):\n%s", page, cmp.Diff(got, want))
	}
	// The mode is for new files alone: the page keeps its own.
	return os.WriteFile(page, []byte(before+start+want+end+after), 0o600)
}
