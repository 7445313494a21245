package convert

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
)

// File is a local target: written beside its name, renamed to it when it is whole.
type File struct {
	f     *os.File
	name  string // what it will be called
	done  bool
	loose bool // Commit does not wait for the disk
	// dirty counts the bytes written since the system was last told to begin with them.
	dirty atomic.Int64
}

// writebackStep is after how many bytes the disk is set to work, so that little is left to wait for in
// Commit.
const writebackStep = 32 << 20

// maxPartBase is how much of a name goes into that of its unfinished file, in bytes: file systems
// take 255, and 17 are added.
const maxPartBase = 200

// Create starts a file that Commit will call name. An existing regular file of that name stays
// as it is until then; anything else of that name (a device, a folder, a pipe) is refused, since
// renaming would replace it. A symbolic link is followed.
func Create(name string) (*File, error) {
	switch real, err := filepath.EvalSymlinks(name); {
	case err == nil:
		name = real
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	mode := fs.FileMode(0)
	switch st, err := os.Lstat(name); {
	case err == nil && st.Mode()&fs.ModeSymlink != 0:
		return nil, fmt.Errorf("%s is a symbolic link to nothing: name another target", name)
	case err == nil && !st.Mode().IsRegular():
		return nil, fmt.Errorf("%s exists and is no regular file: name another target", name)
	case err == nil:
		mode = st.Mode().Perm()
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	// Not os.CreateTemp: its files are private, and an image is as readable as any other file.
	base := filepath.Base(name)
	base = base[:min(len(base), maxPartBase)]
	part := filepath.Join(filepath.Dir(name), "."+base+"."+rand.Text()[:10]+".part")
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return nil, fmt.Errorf("can't write beside %s: %w", name, err)
	}
	if mode != 0 { // what replaces a file is not open to more people than it was
		if err := f.Chmod(mode); err != nil && runtime.GOOS != "windows" {
			f.Close()
			os.Remove(part)
			return nil, err
		}
	}
	return &File{f: f, name: name}, nil
}

// Path is where the file is until Commit, to be read back.
func (t *File) Path() string { return t.f.Name() }

// SkipSync has Commit not wait until the bytes are on the disk: a power cut soon after may then leave a
// file that has its name but not all of its bytes.
func (t *File) SkipSync() { t.loose = true }

// Write appends p.
func (t *File) Write(p []byte) (int, error) {
	n, err := t.f.Write(p)
	t.wrote(n)
	return n, err
}

// WriteAt writes p at off. What is never written stays a hole.
func (t *File) WriteAt(p []byte, off int64) (int, error) {
	n, err := t.f.WriteAt(p, off)
	t.wrote(n)
	return n, err
}

func (t *File) wrote(n int) {
	if t.loose {
		return
	}
	if sum := t.dirty.Add(int64(n)); sum >= writebackStep && t.dirty.CompareAndSwap(sum, 0) {
		startWriteback(t.f)
	}
}

// Truncate sets the length in bytes.
func (t *File) Truncate(size int64) error { return t.f.Truncate(size) }

// Commit makes the file durable, unless SkipSync was called, and gives it its name. After an error nothing has the name that
// had not before.
func (t *File) Commit() error {
	if t.done {
		return errors.New("the file was already committed or discarded")
	}
	var err error
	if !t.loose {
		err = t.f.Sync()
	}
	if cerr := t.f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(t.f.Name(), t.name)
	}
	if err != nil {
		t.Discard()
		return err
	}
	t.done = true
	if t.loose {
		return nil
	}
	return syncDir(filepath.Dir(t.name))
}

// Discard removes the unfinished file. After Commit it does nothing, so it can be deferred.
func (t *File) Discard() {
	if t.done {
		return
	}
	t.done = true
	t.f.Close()
	os.Remove(t.f.Name())
}

// syncDir makes a rename durable. Windows has no such call, and needs none.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}
