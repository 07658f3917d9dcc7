package client

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/stokerd/stoker/internal/atomicfile"
)

// Files are where an agent keeps its certificate, in PEM.
//
// Two files cannot be replaced in one step. While a certificate is replaced, its
// key's file therefore holds the old key and the new one, so that there is a key
// for whichever certificate is found: at every moment, and after a crash at any.
// This package uses the key that fits, wherever it stands in the file.
type Files struct {
	// Certificate is the agent's certificate, followed by intermediate ones if
	// there are any.
	Certificate string
	// Key is the certificate's key. It is written with mode 0600.
	Key string
	// Authority verifies the broker. It is written when the agent enrolls, and
	// left alone when it renews.
	Authority string
}

// FilesIn names the files of an agent that has a directory of its own: agent.pem,
// agent.key and ca.pem.
func FilesIn(dir string) Files {
	return Files{
		Certificate: filepath.Join(dir, "agent.pem"),
		Key:         filepath.Join(dir, "agent.key"),
		Authority:   filepath.Join(dir, "ca.pem"),
	}
}

const (
	keyMode    fs.FileMode = 0o600
	publicMode fs.FileMode = 0o644
	// longestPEM bounds what is read of a file, in bytes.
	longestPEM = 1 << 20
	// room is what is set aside on the disk for a certificate before the broker
	// is asked for one.
	room = 16 << 10
)

// pair is a certificate with its key, as found in their files.
type pair struct {
	certificate tls.Certificate // with its Leaf
	thumbprint  [sha256.Size]byte
	key         []byte // in PEM, alone
	crowded     bool   // the file has other keys too
}

// loadPair reads a certificate and the key that fits. Its files may be replaced
// meanwhile, so that one was read before and one after: it looks twice.
func loadPair(certFile, keyFile string) (pair, error) {
	if certFile == "" || keyFile == "" {
		return pair{}, errors.New("the client certificate needs both its file and its key's")
	}
	p, err := readPair(certFile, keyFile)
	if err != nil {
		p, err = readPair(certFile, keyFile)
	}
	if err != nil {
		return pair{}, fmt.Errorf("client certificate %s with key %s: %w", certFile, keyFile, err)
	}
	return p, nil
}

func readPair(certFile, keyFile string) (pair, error) {
	certificate, err := readBounded(certFile)
	if err != nil {
		return pair{}, err
	}
	keys, err := readBounded(keyFile)
	if err != nil {
		return pair{}, err
	}
	blocks := privateKeys(keys)
	for _, block := range blocks {
		key := pem.EncodeToMemory(block)
		if found, err := tls.X509KeyPair(certificate, key); err == nil {
			if found.Leaf == nil { // a setting of the runtime's may leave it out
				if found.Leaf, err = x509.ParseCertificate(found.Certificate[0]); err != nil {
					return pair{}, err
				}
			}
			return pair{
				certificate: found, thumbprint: sha256.Sum256(found.Certificate[0]), key: key, crowded: len(blocks) > 1,
			}, nil
		}
	}
	_, err = tls.X509KeyPair(certificate, keys) // says what is wrong
	return pair{}, err
}

// privateKeys gives the blocks in which a TLS library would look for a key.
func privateKeys(text []byte) []*pem.Block {
	var keys []*pem.Block
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return keys
		}
		if block.Type == "PRIVATE KEY" || strings.HasSuffix(block.Type, " PRIVATE KEY") {
			keys = append(keys, block)
		}
	}
}

func readBounded(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() > longestPEM {
		return nil, fmt.Errorf("%s is over %d bytes", file, longestPEM)
	}
	return os.ReadFile(file)
}

// replacement is a new pair on its way into the files. One of commit and abandon
// ends it.
type replacement struct {
	old    *pair // nil: there was none that could be used
	unlock func() error
	// both is the key's file while either certificate may be found. It is nil
	// where there is no old pair.
	both, certificate, key *atomicfile.Staged
}

// prepare locks the files and writes all that can be written before the new
// certificate is known, with room for that. A full or broken disk is noticed
// here, before a broker has spent anything. atomicfile.ErrLocked says that
// another process is about to replace the pair.
func (f Files) prepare(key []byte) (_ *replacement, err error) {
	mode, err := f.replaceable()
	if err != nil {
		return nil, err
	}
	r := &replacement{}
	if r.unlock, err = atomicfile.TryLock(f.lock()); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.abandon())
		}
	}()
	if err := errors.Join(atomicfile.Sweep(f.Key), atomicfile.Sweep(f.Certificate)); err != nil {
		return nil, err
	}
	if old, err := loadPair(f.Certificate, f.Key); err == nil {
		r.old = &old
		if r.both, err = atomicfile.Stage(f.Key, append(bytes.Clone(old.key), key...), keyMode); err != nil {
			return nil, err
		}
	}
	if r.key, err = atomicfile.Stage(f.Key, key, keyMode); err != nil {
		return nil, err
	}
	r.certificate, err = atomicfile.Stage(f.Certificate, make([]byte, room), mode)
	return r, err
}

// commit puts the pair in its place: the new key beside the old one, then the
// certificate, then the new key alone.
func (r *replacement) commit(certificate []byte) error {
	err := r.certificate.Refill(certificate)
	if err == nil && r.both != nil {
		err = r.both.Place()
	}
	if err == nil && r.both == nil {
		err = r.key.Place()
	}
	if err == nil {
		err = r.certificate.Place()
	}
	if err == nil && r.both != nil {
		err = r.key.Place()
	}
	return errors.Join(err, r.abandon())
}

// abandon removes what is not in its place, and gives the lock back. After commit
// it does nothing.
func (r *replacement) abandon() error {
	var problems []error
	for _, staged := range []*atomicfile.Staged{r.both, r.key, r.certificate} {
		if staged != nil {
			problems = append(problems, staged.Discard())
		}
	}
	if r.unlock != nil {
		problems = append(problems, r.unlock())
		r.unlock = nil
	}
	return errors.Join(problems...)
}

// lock is the name of the lock that those hold who replace the pair.
func (f Files) lock() string {
	return filepath.Join(filepath.Dir(f.Key), "."+filepath.Base(f.Key)+".lock")
}

// replaceable refuses files that are somebody else's to replace, and gives the
// certificate's mode.
func (f Files) replaceable() (fs.FileMode, error) {
	mode := publicMode
	for _, file := range []string{f.Key, f.Certificate} {
		switch info, err := os.Lstat(file); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return 0, err
		case !info.Mode().IsRegular():
			return 0, fmt.Errorf("%s is no regular file: %w", file, errNotOurs)
		case file == f.Certificate:
			mode = info.Mode().Perm()
		}
	}
	if f.shared() {
		return 0, fmt.Errorf("%s has both the certificate and its key: %w", f.Key, errNotOurs)
	}
	return mode, nil
}

// shared says whether the certificate and its key are in one file.
func (f Files) shared() bool {
	if filepath.Clean(f.Key) == filepath.Clean(f.Certificate) {
		return true
	}
	key, err := os.Stat(f.Key)
	if err != nil {
		return false
	}
	certificate, err := os.Stat(f.Certificate)
	return err == nil && os.SameFile(key, certificate)
}

// errNotOurs says that files are replaced by somebody else.
var errNotOurs = errors.New("it is left to whoever made it")

// tidy removes keys that a crash has left beside the pair's own.
func (f Files) tidy() error {
	unlock, err := atomicfile.TryLock(f.lock())
	if err != nil {
		return err
	}
	p, err := loadPair(f.Certificate, f.Key)
	if err == nil && p.crowded {
		err = atomicfile.Write(f.Key, p.key, keyMode)
	}
	return errors.Join(err, atomicfile.Sweep(f.Key), atomicfile.Sweep(f.Certificate), unlock())
}
