package delivery

import (
	"errors"
	"os"
	"path/filepath"
)

// replaceFile puts a new file in the place of an old one in one step, so that no
// reader ever sees a part of it, and a full disk leaves the old one whole. The
// new file is its owner's alone.
func replaceFile(file string, data []byte) (err error) {
	dir := filepath.Dir(file)
	temporary, err := os.CreateTemp(dir, "."+filepath.Base(file)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreGone(os.Remove(temporary.Name())))
		}
	}()
	_, err = temporary.Write(data)
	if err == nil {
		// Otherwise a crash after the rename could leave an empty file.
		err = temporary.Sync()
	}
	if err = errors.Join(err, temporary.Close()); err != nil {
		return err
	}
	if err = rename(temporary.Name(), file); err != nil {
		return err
	}
	return syncDir(dir)
}

func ignoreGone(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
