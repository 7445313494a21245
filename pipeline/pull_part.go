package pipeline

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/gofrs/flock"

	"imgferry/convert"
	"imgferry/formats"
)

// partFile is an unfinished raw disk: the file, and a note of what of it is good. The note says only
// what was made durable before, so that it holds after a loss of power too.
type partFile struct {
	f    *os.File
	lock *flock.Flock
	name string // what it will be called
	partNote
	done int64 // bytes of the disk, from its front
}

// partNote is the note on an unfinished file.
type partNote struct {
	Version  int    `json:"version"`
	Identity string `json:"source"`
	Size     int64  `json:"virtual_size"`
	Done     int64  `json:"done"`
}

const (
	noteVersion = 1
	maxNote     = 64 << 10
)

// partPath is where the unfinished file of name is, with an ending.
func partPath(name, ending string) string {
	base := filepath.Base(name)
	return filepath.Join(filepath.Dir(name), "."+base[:min(len(base), 200)]+".pull"+ending)
}

// openPart opens the unfinished file of name, or begins one. What is there counts if it is of the same
// version of the same object.
func openPart(name, identity string, size int64) (_ *partFile, err error) {
	// The same refusals as for any other target: what is no regular file is not replaced.
	probe, err := convert.Create(name)
	if err != nil {
		return nil, err
	}
	probe.Discard()
	if real, err := filepath.EvalSymlinks(name); err == nil {
		name = real
	}
	p := &partFile{name: name, partNote: partNote{noteVersion, identity, size, 0}}
	p.lock = flock.New(partPath(name, ".lock"))
	if held, err := p.lock.TryLock(); err != nil {
		return nil, fmt.Errorf("can't write beside %s: %w", name, err)
	} else if !held {
		return nil, fmt.Errorf("another run is writing %s", name)
	}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	mode := fs.FileMode(0o666)
	if fi, err := os.Stat(name); err == nil {
		mode = fi.Mode().Perm() // what replaces a file is not open to more people than it was
	}
	// Not through a symbolic link that somebody may have put there.
	if fi, err := os.Lstat(partPath(name, ".part")); err == nil && !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file: remove it", partPath(name, ".part"))
	}
	p.f, err = os.OpenFile(partPath(name, ".part"), os.O_RDWR|os.O_CREATE, mode)
	if err != nil {
		return nil, err
	}
	p.done = p.noted()
	// Whatever lies behind may be torn.
	if err := errors.Join(p.f.Truncate(p.done), p.f.Truncate(size)); err != nil {
		return nil, err
	}
	return p, nil
}

// noted is how much of the file its note vouches for.
func (p *partFile) noted() int64 {
	fi, err := os.Stat(partPath(p.name, ".note"))
	if err != nil || fi.Size() > maxNote {
		return 0
	}
	text, err := os.ReadFile(partPath(p.name, ".note"))
	var n partNote
	if err != nil || json.Unmarshal(text, &n) != nil {
		return 0
	}
	st, err := p.f.Stat()
	done := n.Done
	n.Done = 0
	if err != nil || n != p.partNote || p.Identity == "" || st.Size() < min(done, p.Size) || done%convert.BlockSize != 0 || done < 0 {
		return 0
	}
	return min(done, p.Size)
}

// note notes that everything up to done is written.
func (p *partFile) note(done int64) error {
	if done <= p.done {
		return nil
	}
	if err := p.f.Sync(); err != nil {
		return err
	}
	n := p.partNote
	n.Done = done
	text, err := json.Marshal(n)
	if err != nil {
		return err
	}
	out, err := convert.Create(partPath(p.name, ".note"))
	if err != nil {
		return err
	}
	defer out.Discard()
	if _, err := out.Write(append(text, '\n')); err != nil {
		return err
	}
	return out.Commit()
}

// commit gives the file its name.
func (p *partFile) commit() error {
	err := p.f.Sync()
	if cerr := p.f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(p.f.Name(), p.name)
	}
	if err != nil {
		return err
	}
	os.Remove(partPath(p.name, ".note"))
	if runtime.GOOS == "windows" {
		return nil // it has no such call, and needs none
	}
	d, err := os.Open(filepath.Dir(p.name))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// discard removes the file: nothing can go on from it.
func (p *partFile) discard() {
	p.f.Close()
	os.Remove(partPath(p.name, ".note"))
	os.Remove(partPath(p.name, ".part"))
}

// close ends the work on the file.
func (p *partFile) close() {
	if p.f != nil {
		p.f.Close() // twice does no harm
	}
	os.Remove(partPath(p.name, ".lock"))
	p.lock.Unlock()
}

// partly is a disk of which the front was written before: it is read from there.
type partly struct {
	formats.Image
	part *partFile
	done int64
}

// ReadAt reads here or there. Blocks are never half done.
func (p partly) ReadAt(b []byte, off int64) (int, error) {
	if off >= p.done {
		return p.Image.ReadAt(b, off)
	}
	if int64(len(b)) <= p.done-off {
		return p.part.f.ReadAt(b, off)
	}
	n, err := p.part.f.ReadAt(b[:p.done-off], off)
	if err != nil {
		return n, err
	}
	m, err := p.Image.ReadAt(b[n:], p.done)
	return n + m, err
}

// partTarget is the file; what was written before is not written again.
type partTarget struct {
	part *partFile
	done int64
}

// Write is never called: the disk is written at its places.
func (partTarget) Write([]byte) (int, error) { return 0, io.ErrNoProgress }

// WriteAt writes at off.
func (t partTarget) WriteAt(b []byte, off int64) (int, error) {
	if off+int64(len(b)) <= t.done {
		return len(b), nil
	}
	return t.part.f.WriteAt(b, off)
}

// Truncate makes sure of the size, which it has already.
func (t partTarget) Truncate(size int64) error { return t.part.f.Truncate(size) }
