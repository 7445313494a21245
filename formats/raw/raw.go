// Package raw reads raw disks: files whose bytes are the disk's bytes.
//
// Everything is a raw disk, so this format comes last in a table of formats. The package never
// looks at the bytes, and never turns a disk that was declared raw into another format.
package raw

import (
	"context"
	"fmt"
	"io"
	"iter"
	"os"

	"imgferry/formats"
)

const name = "raw"

// Format returns the raw format. Its Probe knows every source. Its images take their extents from
// a source that is a formats.HoleFinder; any other source is one run of data. The size need not be
// a multiple of 512, but an empty file is refused.
func Format() formats.Format {
	return formats.Format{
		Name:  name,
		Probe: func(formats.Source) (bool, error) { return true, nil },
		Open:  open,
		Info:  info,
	}
}

func check(src formats.Source) error {
	if src.Size() == 0 {
		return formats.Corrupt(name, -1, "the file is empty, there is no disk in it")
	}
	return nil
}

func open(ctx context.Context, src formats.Source, _ formats.Resolver) (formats.Image, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := check(src); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	return &image{ctx: ctx, cancel: cancel, src: src, size: src.Size()}, nil
}

func info(_ context.Context, src formats.Source) (formats.Info, error) {
	return formats.Info{Format: name, VirtualSize: src.Size(), Problem: check(src)}, nil
}

// image is a raw disk. ctx ends with the caller's context, or with os.ErrClosed at Close.
type image struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	src    formats.Source
	size   int64
}

func (m *image) Size() int64      { return m.size }
func (m *image) Sequential() bool { return false }

func (m *image) Close() error {
	m.cancel(os.ErrClosed)
	return m.src.Close()
}

func (m *image) ReadAt(p []byte, off int64) (int, error) {
	if m.ctx.Err() != nil {
		return 0, context.Cause(m.ctx)
	}
	if off < 0 {
		return 0, fmt.Errorf("raw: negative offset %d", off)
	}
	if off >= m.size {
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), m.size-off)]
	n, err := m.src.ReadAt(want, off)
	switch {
	case n < len(want):
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if m.ctx.Err() != nil {
			err = context.Cause(m.ctx)
		}
		return n, formats.ReadFailed(name, off+int64(n), "the disk", err)
	case n < len(p):
		return n, io.EOF
	}
	return n, nil
}

func (m *image) Extents(ctx context.Context) iter.Seq2[formats.Extent, error] {
	return func(yield func(formats.Extent, error) bool) {
		finder, ok := m.src.(formats.HoleFinder)
		for off := int64(0); off < m.size; {
			for _, c := range []context.Context{m.ctx, ctx} {
				if c.Err() != nil {
					yield(formats.Extent{}, context.Cause(c))
					return
				}
			}
			start, end := off, m.size
			if ok {
				var err error
				if start, end, err = finder.NextData(off); err != nil {
					yield(formats.Extent{}, formats.ReadFailed(name, off, "where data lies", err))
					return
				}
				if start < off || end > m.size || end <= start && start < m.size {
					start, end = off, m.size // impossible: data is the safe answer
				}
			}
			if start > off && !yield(formats.Extent{Offset: off, Length: start - off, Zero: true, HostOffset: -1}, nil) {
				return
			}
			if end > start && !yield(formats.Extent{Offset: start, Length: end - start, HostOffset: start}, nil) {
				return
			}
			off = end
		}
	}
}
