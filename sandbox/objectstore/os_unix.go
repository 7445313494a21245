//go:build unix

package objectstore

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// lockExclusive takes flock(2)'s lock, which ends with the process. It fails with ErrLocked if
// somebody has it.
func lockExclusive(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return ErrLocked
	}
	return err
}

func syncDirectory(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// makeSparse does nothing: files have holes wherever nothing was written.
func makeSparse(*os.File) error { return nil }

func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
