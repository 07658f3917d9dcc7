package transcript

import (
	"bytes"
	"sync"
)

// Transcript is an io.Writer that can be read meanwhile. Its zero value is
// empty; its methods are safe for concurrent use. It must not be copied.
type Transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer; it does not fail.
func (t *Transcript) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.Write(p)
}

// String is all that was said until now.
func (t *Transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}
