package transcript_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stokerd/stoker/internal/transcript"
)

// Several speak at once, line by line, while somebody reads.
func TestTranscript(t *testing.T) {
	const speakers, lines = 4, 100
	var said transcript.Transcript
	if said.String() != "" {
		t.Errorf("it begins with %q", &said)
	}
	var speaking sync.WaitGroup
	for i := range speakers {
		speaking.Go(func() {
			for range lines {
				fmt.Fprintf(&said, "speaker %d\n", i)
			}
		})
	}
	for range lines {
		if text := said.String(); text != "" && !strings.HasSuffix(text, "\n") {
			t.Fatalf("half a line: %q", text)
		}
	}
	speaking.Wait()
	for i := range speakers {
		if n := strings.Count(said.String(), fmt.Sprintf("speaker %d\n", i)); n != lines {
			t.Errorf("%d lines of speaker %d", n, i)
		}
	}
}
