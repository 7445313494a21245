package imageservice

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"imgferry/convert"
	"imgferry/formats"
	"imgferry/formats/zvhd2"
)

// zvhd2Name is the format in which disks are kept, unless they came as a file of their own.
const zvhd2Name = "zvhd2"

// disks is the folder with the disks of all images, one file each. A file is there before any image
// refers to it, and goes after the last one has ceased to; what a crash leaves over is swept by open.
type disks struct {
	dir     string
	formats []formats.Format
	workers int
}

// open makes the folder and removes every file but those in use.
func (d disks) open(used map[string]bool) error {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !used[e.Name()] {
			if err := os.Remove(filepath.Join(d.dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// create starts a file, which Commit will give the name that is returned.
func (d disks) create(format string) (*convert.File, string, error) {
	name := newUUID() + "." + format
	f, err := convert.Create(filepath.Join(d.dir, name))
	if err != nil {
		err = &keepError{err}
	}
	return f, name, err
}

// remove deletes files. One that can't be deleted, since somebody reads it, is swept by the next open.
func (d disks) remove(files []diskFile) {
	for _, f := range files {
		_ = os.Remove(filepath.Join(d.dir, f.Name))
	}
}

// keep stores a disk's content: it reads every block that may hold data.
func (d disks) keep(ctx context.Context, img formats.Image, progress func(done, total int64)) (diskFile, convert.Result, error) {
	f, name, err := d.create(zvhd2Name)
	if err != nil {
		return diskFile{}, convert.Result{}, err
	}
	defer f.Discard()
	counted := &counter{w: f}
	w, err := zvhd2.NewWriter(counted, zvhd2.Options{OrigSize: img.Size(), Level: zvhd2.LevelFastest})
	if err != nil {
		return diskFile{}, convert.Result{}, err
	}
	told := &tellingWriter{w, blocksOf(img.Size()), progress}
	result, err := convert.Stream(ctx, img, told, convert.Options{Workers: d.workers})
	if err == nil {
		err = commit(f)
	}
	return diskFile{Name: name, Format: zvhd2Name, Size: counted.n, Virtual: img.Size()}, result, err
}

// keepFile stores the bytes of r, which are an image file of that format.
func (d disks) keepFile(ctx context.Context, r io.Reader, format string) (diskFile, error) {
	f, name, err := d.create(format)
	if err != nil {
		return diskFile{}, err
	}
	defer f.Discard()
	n, err := io.Copy(&counter{w: f}, contextReader{ctx, r})
	if err == nil {
		err = commit(f)
	}
	return diskFile{Name: name, Format: format, Size: n}, err
}

// commit is File.Commit with a keepError.
func commit(f *convert.File) error {
	if err := f.Commit(); err != nil {
		return &keepError{err}
	}
	return nil
}

// image opens a disk.
func (d disks) image(ctx context.Context, f diskFile) (formats.Image, error) {
	format, err := formats.ByName(d.formats, f.Format)
	if err != nil {
		return nil, err
	}
	src, err := d.source(f)
	if err != nil {
		return nil, err
	}
	img, err := format.Open(ctx, src, nil)
	if err != nil {
		return nil, errors.Join(err, src.Close())
	}
	return img, nil
}

// source opens a disk's file.
func (d disks) source(f diskFile) (*fileSource, error) {
	file, err := os.Open(filepath.Join(d.dir, f.Name))
	if err != nil {
		return nil, fmt.Errorf("the disk of the image is lost: %w", err)
	}
	return &fileSource{file, f.Size}, nil
}

// fileSource is a formats.Source of a file that nobody changes.
type fileSource struct {
	*os.File
	size int64
}

func (f *fileSource) Size() int64      { return f.size }
func (f *fileSource) Identity() string { return f.Name() }

// serviceName is the service's name of a format: it calls VHD so, which the table has under QEMU's name.
func serviceName(f formats.Format) string {
	if f.Name == "vpc" {
		return "vhd"
	}
	return f.Name
}

// detect returns the format of a file by its content.
func (d disks) detect(src formats.Source) (formats.Format, error) {
	return formats.Detect(d.formats, src)
}

// isoMark is where an ISO 9660 disc has "CD001": sector 16 of 2048 bytes, behind a type byte (ECMA-119, 8.1).
const isoMark = 16*2048 + 1

// isISO reports whether src is a disc.
func isISO(src formats.Source) (bool, error) {
	b := make([]byte, 5)
	if src.Size() < isoMark+int64(len(b)) {
		return false, nil
	}
	if err := formats.ReadFull(src, b, isoMark); err != nil {
		return false, fmt.Errorf("can't read it at offset %d: %w", isoMark, err)
	}
	return string(b) == "CD001", nil
}

// tellingWriter tells how far it is. Blocks that are left out count with the next that is not.
type tellingWriter struct {
	convert.Writer
	blocks   int64
	progress func(done, total int64)
}

func (t *tellingWriter) WriteBlock(index int64, encoded []byte) error {
	t.progress(index+1, t.blocks)
	return t.Writer.WriteBlock(index, encoded)
}

func blocksOf(size int64) int64 { return max(1, (size+convert.BlockSize-1)/convert.BlockSize) }

// keepError is a failure of the service's own disk: nothing is wrong with what was to be kept.
type keepError struct{ error }

func (e *keepError) Unwrap() error { return e.error }

// counter counts what is written. Its errors are keepErrors.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	if err != nil {
		err = &keepError{err}
	}
	return n, err
}

// contextReader stops when its context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

// Resources are what a real cloud has besides images, each standing for files on this machine.
type Resources struct {
	// Volumes, Instances and Backups are disks by id; those of an instance or a backup begin with the
	// system disk. A disk of an instance that is the name of a volume is that volume.
	Volumes   map[string]string
	Instances map[string][]string
	Backups   map[string][]string
	// Regions are the names of the regions that images can be copied to, and their projects' names ("" is
	// the region's own name).
	Regions map[string]string
	// Keys and Vaults are the ids of encryption keys and of backup vaults. None means that any id is one.
	Keys, Vaults []string
	// Open opens a disk by its name in the maps above. nil opens local files with the service's formats,
	// and follows no name in them.
	Open func(ctx context.Context, name string) (formats.Image, error) `json:"-"`
}

// ParseResource splits "ID=FILE,FILE": the id of a volume, an instance or a backup and its disks. An instance
// without disks is "ID=".
func ParseResource(s string) (id string, files []string, err error) {
	id, list, ok := strings.Cut(s, "=")
	if !ok || id == "" {
		return "", nil, fmt.Errorf("%q is not of the form ID=FILE", s)
	}
	for name := range strings.SplitSeq(list, ",") {
		if name != "" {
			files = append(files, name)
		}
	}
	return id, files, nil
}

// attached returns the instance that has a volume, or "".
func (r Resources) attached(volume string) string {
	for id, list := range r.Instances {
		for _, name := range list {
			if name == volume {
				return id
			}
		}
	}
	return ""
}

// openResource opens a disk of Config.Resources.
func (s *Service) openResource(ctx context.Context, name string) (formats.Image, error) {
	r := s.cfg.Resources
	if file, ok := r.Volumes[name]; ok {
		name = file
	}
	if r.Open != nil {
		return r.Open(ctx, name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: errors.New("it is no regular file")}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	src := &fileSource{f, st.Size()}
	format, err := s.disks.detect(src)
	if err != nil {
		return nil, errors.Join(err, src.Close())
	}
	img, err := format.Open(ctx, src, nil)
	if err != nil {
		return nil, errors.Join(err, src.Close())
	}
	return img, nil
}

// scan reads every block that may hold data.
func scan(ctx context.Context, img formats.Image, workers int) error {
	_, err := convert.Scan(ctx, img, convert.Options{Workers: workers})
	return err
}
