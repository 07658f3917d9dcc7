package delivery

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/stokerd/stoker/internal/atomicfile"
)

// KeepToken gives the token in a file, making both if need be. The same token
// across restarts lets tools that run for longer than the agent go on. The file
// is readable by its owner alone and has no newline, which the SDKs would refuse.
func KeepToken(file string) (string, error) {
	text, err := readPrivate(file)
	if err == nil && wellFormed(text) {
		return text, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("token file: %w", err)
	}
	token := rand.Text() + rand.Text()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	if err := atomicfile.Write(file, []byte(token), 0o600); err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	return token, nil
}

// longestSecret bounds, in bytes, what is read of a file that holds one secret.
const longestSecret = 64 << 10

// readPrivate reads a small file that nobody else may read.
func readPrivate(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if err := CheckPrivate(file, info); err != nil {
		return "", err
	}
	text, err := io.ReadAll(io.LimitReader(f, longestSecret))
	return string(text), err
}

// wellFormed says whether a text can be a token of ours.
func wellFormed(token string) bool {
	for _, r := range token {
		if (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (r < '0' || r > '9') {
			return false
		}
	}
	return len(token) >= shortestToken
}
