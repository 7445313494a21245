package objectstore

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Names in the data directory.
const (
	versionFile  = "VERSION"
	lockFile     = "LOCK"
	bucketsDir   = "buckets"
	segmentsDir  = "segments"
	tempDir      = "tmp"
	bucketPrefix = "b-" // a bucket may be called con or nul, which Windows takes for devices
	bucketFile   = "bucket.json"

	version = "imgferry object store 2\n"
)

// disk is the data directory and how to change it so that a crash shows the old state or the new.
type disk struct {
	root   string
	noSync bool
	step   func(string) // may be nil
}

func (d disk) path(elem ...string) string {
	return filepath.Join(append([]string{d.root}, elem...)...)
}

// at marks a moment between two durable steps.
func (d disk) at(step string) {
	if d.step != nil {
		d.step(step)
	}
}

// claim locks the directory, and prepares it if it is empty. The result unlocks it.
func (d disk) claim() (_ io.Closer, err error) {
	if err := os.MkdirAll(d.root, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(d.path(lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	if err := lockExclusive(lock); err != nil {
		return nil, err
	}
	switch v, err := os.ReadFile(d.path(versionFile)); {
	case errors.Is(err, fs.ErrNotExist):
		if err := d.prepare(); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	case string(v) != version:
		return nil, fmt.Errorf("the directory was made by another version of the store (%.40q instead of %q): use another one", strings.TrimSpace(string(v)), strings.TrimSpace(version))
	}
	return lock, nil
}

// prepare makes an empty store. VERSION comes last: without it the directory counts as unprepared.
func (d disk) prepare() error {
	entries, err := os.ReadDir(d.root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch e.Name() {
		case lockFile, bucketsDir, segmentsDir, tempDir:
		default:
			return fmt.Errorf("the directory is not an object store and holds %s", e.Name())
		}
	}
	for _, name := range []string{bucketsDir, segmentsDir, tempDir} {
		if err := os.MkdirAll(d.path(name), 0o700); err != nil {
			return err
		}
	}
	tmp, err := d.writeTemp([]byte(version))
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, d.path(versionFile)); err != nil {
		return err
	}
	return d.syncDir(d.root)
}

func (d disk) emptyTemp() error {
	entries, err := os.ReadDir(d.path(tempDir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(d.path(tempDir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// tempPath is an unused name in tmp.
func (d disk) tempPath() string { return d.path(tempDir, randomHex(16)) }

// writeRecord writes v, on one line, to a new file in tmp and syncs it, ready to be renamed.
func (d disk) writeRecord(v any) (path string, err error) {
	p, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	return d.writeTemp(append(p, '\n'))
}

// appendRecord adds v as one more line to a file, durably. After an error the file is as before.
func (d disk) appendRecord(path string, v any) error {
	p, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err = f.Write(append(p, '\n')); err == nil {
		err = d.syncFile(f)
	}
	if err != nil {
		return errors.Join(err, f.Truncate(st.Size()))
	}
	return nil
}

func (d disk) writeTemp(p []byte) (path string, err error) {
	path = d.tempPath()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	_, err = f.Write(p)
	if err == nil {
		err = d.syncFile(f)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(path)
		return "", err
	}
	return path, nil
}

func (d disk) syncFile(f *os.File) error {
	if d.noSync {
		return nil
	}
	return f.Sync()
}

// syncDir makes renames and removals in a directory durable. A directory that is gone needs none.
func (d disk) syncDir(path string) error {
	if d.noSync {
		return nil
	}
	if err := syncDirectory(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// readRecord reads what writeRecord wrote.
func readRecord(path string, v any) error {
	lines, err := readLines(path)
	if err != nil {
		return err
	}
	if len(lines) != 1 {
		return fmt.Errorf("%s is damaged: it has %d lines, not one", path, len(lines))
	}
	return decodeRecord(path, lines[0], v)
}

// readLines returns the whole lines of a file. One without an end was being appended when the
// process died, and nobody was told that it is there; it is cut off.
func readLines(path string) ([][]byte, error) {
	p, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	lines := bytes.SplitAfter(p, []byte("\n"))
	last := lines[len(lines)-1]
	if len(last) > 0 {
		err = os.Truncate(path, int64(len(p)-len(last)))
	}
	return lines[:len(lines)-1], err
}

func decodeRecord(path string, line []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("%s is damaged: %w", path, err)
	}
	return nil
}

// randomHex returns n random bytes in lower-case hex.
func randomHex(n int) string {
	p := make([]byte, n)
	rand.Read(p) // never fails
	return hex.EncodeToString(p)
}
