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
}

// Opened is an open disk image with all the files it lies in. Close closes them.
type Opened struct {
	formats.Image
	// Format is the name of the format.
	Format string
	files  *fileList
}

// Detect opens the file at path and finds its format by its content. What the user says in format
// is checked instead; only raw can be anything. formats.ErrUnknown: there is no such format.
func (o *Opener) Detect(path, format string) (*source.File, formats.Format, error) {
	src, err := source.Open(path)
	if err != nil {
		return nil, formats.Format{}, err
	}
	f, err := o.formatOf(src, format)
	if err != nil {
		src.Close()
		return nil, f, fmt.Errorf("%s: %w", path, err)
	}
	return src, f, nil
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

// Open opens the disk image at path. format "" detects it by content. ctx bounds every later read.
func (o *Opener) Open(ctx context.Context, path, format string) (*Opened, error) {
	src, f, err := o.Detect(path, format)
	if err != nil {
		return nil, err
	}
	res, err := o.resolver(src)
	if err != nil {
		src.Close()
		return nil, err
	}
	img, err := o.open(ctx, f, src, res)
	if err != nil {
		src.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &Opened{img, f.Name, res.files}, nil
}

func (o *Opener) open(ctx context.Context, f formats.Format, src formats.Source, res formats.Resolver) (formats.Image, error) {
	switch {
	case o.Snapshot == "":
		return f.Open(ctx, src, res)
	case f.OpenSnapshot == nil:
		return nil, formats.Unsupported(f.Name, -1, "the format has no internal snapshots")
	}
	return f.OpenSnapshot(ctx, src, res, o.Snapshot)
}

// Layer is what one file of a chain says of itself.
type Layer struct {
	Path string
	// Size is the file's length, Allocated what it takes in its file system, in bytes.
	Size, Allocated int64
	formats.Info
}

// Layers describes the image at path and, if chain is set, the disks that it is based on. Only
// headers are read. With an error it returns the layers before.
func (o *Opener) Layers(ctx context.Context, path, format string, chain bool) ([]Layer, error) {
	src, f, err := o.Detect(path, format)
	if err != nil {
		return nil, err
	}
	defer func() { src.Close() }()
	res, err := o.resolver(src)
	if err != nil {
		return nil, err
	}
	var layers []Layer
	for {
		in, err := f.Info(ctx, src)
		if err != nil {
			return layers, fmt.Errorf("%s: %w", src.Path(), err)
		}
		layers = append(layers, Layer{Path: src.Path(), Size: src.Size(), Allocated: src.Allocated(), Info: in})
		i := slices.IndexFunc(in.Refs, func(r formats.Ref) bool { return r.Kind == formats.Backing || r.Kind == formats.Parent })
		if i < 0 || !chain {
			return layers, nil
		}
		ref := in.Refs[i]
		below, next, err := res.resolve(ref)
		if err != nil {
			return layers, fmt.Errorf("%s: %w", src.Path(), err)
		}
		src.Close()
		src, res = below, next
		if ref.Format == "" {
			ref.Format = o.BackingFormat // "" is no danger here: nothing is read but headers
		}
		if f, err = o.formatOf(src, ref.Format); err != nil {
			return layers, fmt.Errorf("%s: %w", src.Path(), err)
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
	files []*source.File
}

func (l *fileList) add(f *source.File) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.files = append(l.files, f)
}

func (l *fileList) all() []*source.File {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.files
}
