package formatstest

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"

	"imgferry/formats"
)

// Files is a resolver for tests: it opens the files in memory that have these names, exactly as
// spelt, and no others. Disks in them are of the format that the Ref names, found in Formats.
type Files struct {
	Bytes   map[string][]byte
	Formats []formats.Format
}

// Resolve opens the file called r.Name. A name that is not there is fs.ErrNotExist.
func (f Files) Resolve(_ context.Context, r formats.Ref) (formats.Source, formats.Resolver, error) {
	p, ok := f.Bytes[r.Name]
	if !ok {
		return nil, nil, fmt.Errorf("%s %q: %w", r.Kind, r.Name, fs.ErrNotExist)
	}
	return NewSource(p), f, nil
}

// Open opens the disk in the file called r.Name, by r.Format, or by its content if that is "".
func (f Files) Open(ctx context.Context, r formats.Ref) (formats.Image, error) {
	return openDisk(ctx, f, f.Formats, r)
}

// Folder is a resolver for tests that opens the files of the directory Dir. Disks in them are of the
// format that the Ref names, found in Formats.
type Folder struct {
	Dir     string
	Formats []formats.Format
	// Source opens a file: that is package source's business.
	Source func(path string) (formats.Source, error)
}

// Resolve opens the file called r.Name.
func (f Folder) Resolve(_ context.Context, r formats.Ref) (formats.Source, formats.Resolver, error) {
	src, err := f.Source(filepath.Join(f.Dir, r.Name))
	if err != nil {
		return nil, nil, err
	}
	return src, f, nil
}

// Open opens the disk in the file called r.Name, by r.Format, or by its content if that is "".
func (f Folder) Open(ctx context.Context, r formats.Ref) (formats.Image, error) {
	return openDisk(ctx, f, f.Formats, r)
}

func openDisk(ctx context.Context, res formats.Resolver, table []formats.Format, r formats.Ref) (formats.Image, error) {
	src, below, err := res.Resolve(ctx, r)
	if err != nil {
		return nil, err
	}
	f, err := formats.Detect(table, src)
	if r.Format != "" {
		f, err = formats.ByName(table, r.Format)
	}
	if err == nil {
		var img formats.Image
		if img, err = f.Open(ctx, src, below); err == nil {
			return img, nil
		}
	}
	src.Close()
	return nil, err
}
