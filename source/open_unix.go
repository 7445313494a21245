//go:build unix

package source

import (
	"errors"
	"os"
	"syscall"
)

// openFlags: without O_NONBLOCK, a pipe that took the file's place between Stat and Open would
// block for ever. It has no effect on regular files and on reads of block devices.
const openFlags = os.O_RDONLY | syscall.O_NONBLOCK

// unlinkEarly: an open file can be removed.
const unlinkEarly = true

// errNoData is lseek's answer when there is no data (or no file) after the offset.
const errNoData = syscall.ENXIO

// cannotTell reports whether err is how file systems without SEEK_DATA answer.
func cannotTell(err error) bool {
	return errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) ||
		errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOTTY)
}
