package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"imgferry/formats"
	"imgferry/source"
)

// Opener opens disk images by name, and what they name, as far as the user allows that. The zero
// value of all fields but Table allows nothing.
type Opener struct {
	// Table is the formats there are.
	Table []formats.Format
	// Allow are the directories whose files an image may name: its backing file, parent, data file
	// or extents.
	Allow []string
	// BackingFormat is the format of backing files for which the image names none. "" refuses those:
	// whoever wrote to such a disk can make it look like another format.
	BackingFormat string
	// Snapshot is the name or id of the internal snapshot to open; "" opens the disk as it is now.
	Snapshot string
	// Disk is the one of a package (ova, ovf) to open: its number from 1, its file's name or its id in
	// the package. "" will do where there is one only.
	Disk string
	// MetadataOnly says that data will hardly be read, so that the digest that a package's manifest has
	// of it, which takes reading all of it, is not compared.
	MetadataOnly bool
	// Unpack bounds what comes out of compressed files.
	Unpack source.UnpackLimits
	// Remote opens names that begin with http://, https:// or s3://; nil refuses them.
	Remote func(ctx context.Context, name string) (Source, error)
}

// Source is a file, here or elsewhere, that an image lies in.
type Source interface {
	formats.Source
	// Path is how messages call it.
	Path() string
	// Allocated is how many bytes it takes where it is.
	Allocated() int64
	// Changed says whether its bytes may have changed since it was opened.
	Changed() (bool, error)
}

// Opened is an open disk image with all the files it lies in. Close closes them.
type Opened struct {
	formats.Image
	// Format is the name of the format.
	Format string
	files  *fileList
}

// Detect opens the image called name, a file or an address, and finds its format by its content, inside
// of what it is packed in. What the user says in format is checked instead; only raw can be anything.
// formats.ErrUnknown: there is no such format.
func (o *Opener) Detect(ctx context.Context, name, format string) (formats.Source, formats.Format, error) {
	at, f, err := o.detect(ctx, name, format)
	if err != nil {
		return nil, f, err
	}
	if f.Name == partlyStreamable {
		if err := at.spill(); err != nil { // whoever opens one file alone looks here and there
			at.src.Close()
			return nil, f, fmt.Errorf("%s: %w", at.path(), err)
		}
	}
	return at.src, f, nil
}

func (o *Opener) formatOf(src formats.Source, format string) (formats.Format, error) {
	if format == "" {
		f, err := formats.Detect(o.Table, src)
		if errors.Is(err, formats.ErrUnknown) {
			err = fmt.Errorf("%w: say --source-format raw if it is a raw disk", err)
		}
		return f, err
	}
	f, err := formats.ByName(o.Table, format)
	if err != nil {
		return f, err
	}
	ok, err := f.Probe(src)
	if err == nil && !ok {
		err = formats.Corrupt(f.Name, 0, "the file is no %s image", f.Name)
	}
	return f, err
}

// Open opens the disk image called name, a file or an address. format "" detects it by content. ctx
// bounds every later read.
func (o *Opener) Open(ctx context.Context, name, format string) (*Opened, error) {
	at, f, err := o.detect(ctx, name, format)
	if err != nil {
		return nil, err
	}
	res, err := o.resolver(at.file)
	if err == nil {
		err = at.verify(ctx, o)
	}
	var img formats.Image
	if err == nil {
		img, err = o.openImage(ctx, at, f, res)
	}
	if err != nil {
		at.src.Close()
		return nil, fmt.Errorf("%s: %w", at.path(), err)
	}
	if at.stream() != nil {
		img = inOrder{img}
	}
	return &Opened{img, f.Name, res.files}, nil
}

// Layer is what one file of a chain says of itself.
type Layer struct {
	Path string
	// Size is the file's length, Allocated what it takes in its file system, in bytes.
	Size, Allocated int64
	// Packed is what the image is packed in, from the outside: gz, xz, zst, bz2, ova, ovf.
	Packed []string
	// Disks are those of a package of which none was chosen.
	Disks []Layer
	formats.Info
}

// Layers describes the image called name and, if chain is set, the disks that it is based on. Only
// headers are read. With an error it returns the layers before.
func (o *Opener) Layers(ctx context.Context, name, format string, chain bool) ([]Layer, error) {
	at, err := o.find(ctx, name, format)
	if err != nil {
		return nil, err
	}
	if at.pack != nil && o.Disk == "" {
		defer at.src.Close()
		l, err := o.describe(ctx, at)
		return []Layer{l}, err
	}
	at, f, err := o.settle(ctx, at, format)
	if err != nil {
		return nil, err
	}
	src := formats.Source(at.src)
	path, allocated := at.path(), at.allocated()
	defer func() { src.Close() }()
	res, err := o.resolver(at.file)
	if err != nil {
		return nil, err
	}
	var layers []Layer
	for {
		in, err := f.Info(ctx, src)
		if err != nil {
			return layers, fmt.Errorf("%s: %w", path, err)
		}
		layers = append(layers, Layer{Path: path, Size: at.size(src), Allocated: allocated, Packed: at.packed, Info: in})
		i := slices.IndexFunc(in.Refs, func(r formats.Ref) bool { return r.Kind == formats.Backing || r.Kind == formats.Parent })
		if i < 0 || !chain {
			return layers, nil
		}
		ref := in.Refs[i]
		below, next, err := res.resolve(ref)
		if err != nil {
			return layers, fmt.Errorf("%s: %w", path, err)
		}
		src.Close()
		src, res, path, allocated = below, next, below.Path(), below.Allocated()
		at = &located{src: below, file: below}
		if ref.Format == "" {
			ref.Format = o.BackingFormat // "" is no danger here: nothing is read but headers
		}
		if f, err = o.formatOf(src, ref.Format); err != nil {
			return layers, fmt.Errorf("%s: %w", path, err)
		}
	}
}

// Changed says whether the bytes of any of the disk's files may have changed since they were opened.
func (d *Opened) Changed() (bool, error) {
	for _, f := range d.files.all() {
		if changed, err := f.Changed(); changed || err != nil {
			return changed, err
		}
	}
	return false, nil
}

// Allocated is how many bytes the disk's files take in their file systems.
func (d *Opened) Allocated() int64 {
	var n int64
	for _, f := range d.files.all() {
		n += f.Allocated()
	}
	return n
}

// Disk is d as a push takes it.
func (d *Opened) Disk() Disk { return Disk{Image: d.Image, Format: d.Format, Changed: d.Changed} }

// fileList is the files that one disk lies in.
type fileList struct {
	mu    sync.Mutex
	files []Source
}

func (l *fileList) add(f Source) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.files = append(l.files, f)
}

func (l *fileList) all() []Source {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.files
}
