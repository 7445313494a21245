// Package raw reads raw disks: files whose bytes are the disk's bytes.
//
// Everything is a raw disk, so this format comes last in a table of formats. Info says what the first
// bytes tell (a partition table, an ISO 9660 file system); nothing else looks at them, and a disk that
// was declared raw never turns into another format.
package raw

import (
	"context"

	"imgferry/formats"
	"imgferry/formats/mapped"
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
	return mapped.New(mapped.Config{Reader: mapped.NewReader(ctx, name, src), Size: src.Size(), Table: mapped.Flat{}, Holes: true}), nil
}

func info(ctx context.Context, src formats.Source) (formats.Info, error) {
	in := formats.Info{Format: name, VirtualSize: src.Size(), Problem: check(src)}
	var err error
	in.Specific, err = content(ctx, src)
	return in, err
}
