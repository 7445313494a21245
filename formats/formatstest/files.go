package formatstest

import (
	"context"
	"fmt"
	"io/fs"

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
	src, res, err := f.Resolve(ctx, r)
	if err != nil {
		return nil, err
	}
	format, err := formats.Detect(f.Formats, src)
	if r.Format != "" {
		format, err = formats.ByName(f.Formats, r.Format)
	}
	if err != nil {
		return nil, err
	}
	return format.Open(ctx, src, res)
}
