package source

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"imgferry/bitmap"
)

// spillUnit is what becomes a hole of a temporary file where it is all zeros, in bytes: the block of
// most file systems.
const spillUnit = 4096

func newBuffered(r io.Reader) *bufio.Reader { return bufio.NewReaderSize(r, packedBuffer) }

// spillDir is where temporary files go. /tmp is memory on many systems, so that /var/tmp, which is not,
// goes before it.
func (l UnpackLimits) spillDir() string {
	if l.Dir != "" || os.Getenv("TMPDIR") != "" || runtime.GOOS == "windows" {
		return l.Dir // "" is what the system has
	}
	if fi, err := os.Stat("/var/tmp"); err == nil && fi.IsDir() {
		return "/var/tmp"
	}
	return ""
}

// spill unpacks all of it to a temporary file that nobody else can open.
func (s *Stream) spill() (err error) {
	f, err := os.CreateTemp(s.limits.spillDir(), "imgferry-*.unpacked")
	if err != nil {
		return fmt.Errorf("no temporary file for unpacking %s: %w", s.Path(), err)
	}
	s.limits.Notice(fmt.Sprintf("%s: unpacking it (%s, %d bytes) to a temporary file in %s, since it is not read front to back", s.Path(), s.packing, s.size, filepath.Dir(f.Name())))
	if unlinkEarly {
		// Whatever becomes of this process, the file is gone with it.
		if err := os.Remove(f.Name()); err != nil {
			f.Close()
			return err
		}
	}
	defer func() {
		if err != nil {
			f.Close()
			if !unlinkEarly {
				os.Remove(f.Name())
			}
		}
	}()
	s.stop()
	stored := int64(0)
	pos, err := s.advance(s.size, func(p []byte, off int64) error {
		wrote, err := writeUnits(f, p, off)
		if stored += wrote; err == nil && stored > s.limits.Spill {
			err = fmt.Errorf("%w to a temporary file: %d bytes", ErrTooLarge, s.limits.Spill)
		}
		return err
	})
	if err == nil && pos != s.size {
		err = fmt.Errorf("%w (%s): its headers say %d bytes, %d come out", ErrCorrupt, s.packing, s.size, pos)
	}
	if err != nil {
		return err
	}
	s.stop()
	if err := f.Truncate(s.size); err != nil {
		return err
	}
	s.spilled, err = newFile(f, f.Name())
	if err == nil {
		s.head, s.tail, s.recent = nil, nil, ring{}
	}
	return err
}

// writeUnits writes what of p is not zero and returns how much that is.
func writeUnits(f *os.File, p []byte, off int64) (wrote int64, err error) {
	for len(p) > 0 {
		n := int(min(spillUnit-off%spillUnit, int64(len(p))))
		if !bitmap.IsZero(p[:n]) {
			if _, err := f.WriteAt(p[:n], off); err != nil {
				return wrote, err
			}
			wrote += int64(n)
		}
		p, off = p[n:], off+int64(n)
	}
	return wrote, nil
}

// discard closes a temporary file and removes it.
func discard(f *File) error {
	err := f.Close()
	if !unlinkEarly {
		if rerr := os.Remove(f.path); err == nil {
			err = rerr
		}
	}
	return err
}
