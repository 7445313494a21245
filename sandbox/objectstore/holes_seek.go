//go:build linux || darwin

package objectstore

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// nextData returns the first run [start, end) of data in f at or after off, with lseek(2)'s
// SEEK_DATA and SEEK_HOLE; ok is false if only holes follow. It moves f's offset.
func nextData(f *os.File, off int64) (start, end int64, ok bool, err error) {
	start, err = f.Seek(off, unix.SEEK_DATA)
	if errors.Is(err, syscall.ENXIO) {
		return 0, 0, false, nil
	}
	if err != nil {
		return 0, 0, false, err
	}
	end, err = f.Seek(start, unix.SEEK_HOLE)
	return start, end, err == nil, err
}
