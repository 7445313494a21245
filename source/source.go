// Package source is where the bytes of an image come from: a local file or a block device (File), an object
// at another machine that is read by ranges (Remote; HTTP is one of a web server), what is inside of a
// compressed file (Stream) or of an archive (Section).
//
// It knows nothing of image formats: its File satisfies the interfaces that package formats
// declares (Source and HoleFinder) by its methods alone. It never writes, and never follows a name
// found inside a file.
package source

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// File is a local file or block device, opened for reading. Its methods are safe for concurrent
// use.
type File struct {
	f      *os.File
	path   string
	device bool
	size   int64
	id     identity
}

// Open opens the regular file or block device at path; a symbolic link is followed. It refuses
// anything else (directories, pipes, sockets, character devices) without reading from it and
// without waiting for a peer to open it.
func Open(path string) (*File, error) {
	// Opening a pipe blocks until somebody writes to it, and opening a device can have effects:
	// look before opening, and once more at what was opened.
	fi, err := os.Stat(path)
	if path == "-" && errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("a disk image can't be read from standard input: it must be a regular file or a block device")
	}
	if err != nil {
		return nil, err
	}
	if err := checkKind(path, fi.Mode()); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, openFlags, 0)
	if err != nil {
		return nil, err
	}
	return newFile(f, path)
}

// OpenIn opens the regular file called name in root, which a file that nobody vouches for may have
// chosen: whatever leads out of root is refused, also by way of symbolic links, and so is a device.
// path is how messages call it.
func OpenIn(root *os.Root, name, path string) (*File, error) {
	fi, err := root.Stat(name)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := root.OpenFile(name, openFlags, 0)
	if err != nil {
		return nil, err
	}
	s, err := newFile(f, path)
	if err == nil && s.device {
		s.Close()
		return nil, fmt.Errorf("%s is not a regular file", path) // it took the file's place meanwhile
	}
	return s, err
}

// newFile takes ownership of f.
func newFile(f *os.File, path string) (_ *File, err error) {
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := checkKind(path, fi.Mode()); err != nil {
		return nil, err
	}
	s := &File{f: f, path: path, device: fi.Mode()&fs.ModeDevice != 0}
	if s.size, err = s.length(fi); err != nil {
		return nil, err
	}
	s.settle()
	s.id = identify(fi, s.size)
	return s, nil
}

// settle lets the kernel write out what others wrote to a device and it holds in memory: only then
// is it counted. What can't be written out is not this reader's trouble.
func (s *File) settle() {
	if s.device {
		s.f.Sync()
	}
}

// checkKind refuses what can't be read at any offset.
func checkKind(path string, mode fs.FileMode) error {
	var kind string
	switch {
	case mode.IsRegular() || mode&fs.ModeDevice != 0 && mode&fs.ModeCharDevice == 0:
		return nil
	case mode.IsDir():
		kind = "a directory"
	case mode&fs.ModeNamedPipe != 0:
		kind = "a pipe"
	case mode&fs.ModeSocket != 0:
		kind = "a socket"
	case mode&fs.ModeCharDevice != 0:
		kind = "a character device"
	default:
		kind = "of an unknown kind"
	}
	return fmt.Errorf("%s is %s: a disk image must be a regular file or a block device", path, kind)
}

// length returns the size in bytes. A device's own size is not in its Stat.
func (s *File) length(fi fs.FileInfo) (int64, error) {
	if !s.device {
		return fi.Size(), nil
	}
	return s.f.Seek(0, io.SeekEnd)
}

// ReadAt reads as io.ReaderAt says. The file ends at Size even if it has grown since Open.
func (s *File) ReadAt(p []byte, off int64) (int, error) {
	if off >= s.size {
		return 0, io.EOF
	}
	cut := false
	if int64(len(p)) > s.size-off && off >= 0 {
		p, cut = p[:s.size-off], true
	}
	n, err := s.f.ReadAt(p, off)
	if err == nil && cut {
		err = io.EOF
	}
	return n, err
}

// Path is the name that it was opened by.
func (s *File) Path() string { return s.path }

// Same reports whether both are the same file, by whatever names.
func (s *File) Same(other *File) bool {
	a, errA := s.f.Stat()
	b, errB := other.f.Stat()
	return errA == nil && errB == nil && os.SameFile(a, b)
}

// Allocated is how many bytes the file takes in its file system, or its size where that can't be
// told.
func (s *File) Allocated() int64 {
	fi, err := s.f.Stat()
	if err != nil || s.device {
		return s.size
	}
	return allocated(fi)
}

// Close closes the file; later reads fail with an error that is os.ErrClosed.
func (s *File) Close() error { return s.f.Close() }

// Size is the length in bytes when the file was opened.
func (s *File) Size() int64 { return s.size }

// Identity is the file's size, modification time and, where the system has them, device, inode and
// change time, all as they were when it was opened; of a block device, the kernel's counters of writes and
// the id of this boot. Two Opens of a path that return the same Identity read the same bytes, as far as the
// system can tell; "" says that it can't, as with block devices outside of Linux.
func (s *File) Identity() string { return s.id.String() }

// Changed reports whether the open file's identity differs from the one at Open: then the bytes
// may have changed meanwhile. Of a block device, Linux counts the writes. Where the system keeps a
// file's change time, renaming, linking or removing
// the file counts too; whoever replaces a file by renaming another over it is found out by that.
func (s *File) Changed() (bool, error) {
	s.settle()
	fi, err := s.f.Stat()
	if err != nil {
		return false, err
	}
	size, err := s.length(fi)
	if err != nil {
		return false, err
	}
	return identify(fi, size) != s.id, nil
}

// NextData returns the first run [start, end) of bytes at or after off that the file system stores.
// start == end == Size() says that there is none. Where the system can't tell, everything from off
// on is data.
func (s *File) NextData(off int64) (start, end int64, err error) {
	if off < 0 {
		return 0, 0, fmt.Errorf("%s: negative offset %d", s.path, off)
	}
	if off >= s.size {
		return s.size, s.size, nil
	}
	if seekData < 0 || s.device {
		return off, s.size, nil
	}
	// Reads use pread: moving the file's position disturbs nobody. Each seek's answer is its own.
	start, err = s.f.Seek(off, seekData)
	if errors.Is(err, errNoData) {
		return s.size, s.size, nil
	}
	if cannotTell(err) {
		return off, s.size, nil
	}
	if err != nil {
		return 0, 0, err
	}
	if start >= s.size {
		return s.size, s.size, nil // data that was appended after Open
	}
	end, err = s.f.Seek(start, seekHole)
	if errors.Is(err, errNoData) || cannotTell(err) {
		end, err = s.size, nil // shortened meanwhile: reading will tell
	}
	return start, min(end, s.size), err
}
