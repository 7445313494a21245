package convert

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// File is a local target: written beside its name, renamed to it when it is whole.
type File struct {
	f    *os.File
	name string // what it will be called
	done bool
}

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

// Write appends p.
func (t *File) Write(p []byte) (int, error) { return t.f.Write(p) }

// WriteAt writes p at off. What is never written stays a hole.
func (t *File) WriteAt(p []byte, off int64) (int, error) { return t.f.WriteAt(p, off) }

// Truncate sets the length in bytes.
func (t *File) Truncate(size int64) error { return t.f.Truncate(size) }

// Commit makes the file durable and gives it its name. After an error nothing has the name that
// had not before.
func (t *File) Commit() error {
	if t.done {
		return errors.New("the file was already committed or discarded")
	}
	err := t.f.Sync()
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
