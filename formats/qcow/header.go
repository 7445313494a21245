package qcow

import (
	"context"
	"encoding/binary"
	"errors"
	"math"

	"imgferry/formats"
)

// Format returns the qcow format, version 1.
//
// Open refuses encryption with formats.ErrUnsupported, and with formats.ErrNotAllowed a backing file
// without a resolver or with a name that is no file name. The format doesn't say which format its
// backing file is of: the Ref's is "".
func Format() formats.Format {
	return formats.Format{Name: name, Probe: probe, Open: open, Info: info, Check: check}
}

// probe leaves later versions to qcow2.
func probe(src formats.Source) (bool, error) {
	var p [8]byte
	if src.Size() < int64(len(p)) {
		return false, nil
	}
	if err := formats.ReadFull(src, p[:], 0); err != nil {
		return false, err
	}
	return binary.BigEndian.Uint32(p[offMagic:]) == magic && binary.BigEndian.Uint32(p[offVersion:]) == version, nil
}

// front is what the beginning of the file says.
type front struct {
	header
	backing string // the backing file's name, or ""
}

// readFront reads and checks the header and the backing file's name. The fields that could be read
// are filled in even if there is an error.
func readFront(ctx context.Context, src formats.Source) (front, error) {
	var f front
	p := make([]byte, min(headerLen, src.Size()))
	err := formats.ReadAt(ctx, name, src, p, 0, "the header")
	if err != nil {
		return f, err
	}
	if f.header, err = parseHeader(p); err != nil {
		return f, err
	}
	if err := f.check(src.Size()); err != nil || f.backingOffset == 0 {
		return f, err
	}
	p = make([]byte, f.backingSize)
	if err := formats.ReadAt(ctx, name, src, p, int64(f.backingOffset), "the backing file's name"); err != nil {
		return f, err
	}
	f.backing = string(p)
	for _, r := range f.refs() {
		if err := formats.CheckName(name, int64(f.backingOffset), r); err != nil {
			return f, err
		}
	}
	return f, nil
}

// refs lists the other files that the image needs.
func (f *front) refs() []formats.Ref {
	if f.backing == "" {
		return nil
	}
	return []formats.Ref{{Kind: formats.Backing, Name: f.backing}}
}

func info(ctx context.Context, src formats.Source) (formats.Info, error) {
	f, err := readFront(ctx, src)
	if err != nil && !formats.BlamesImage(err) && !errors.Is(err, formats.ErrNotAllowed) {
		return formats.Info{}, err
	}
	in := formats.Info{
		Format:      name,
		VirtualSize: int64(min(f.size, math.MaxInt64)),
		Encrypted:   f.cryptMethod != cryptNone,
		Refs:        f.refs(),
		Problem:     err,
	}
	if f.goodClusterBits() {
		in.ClusterSize = f.cluster()
	}
	return in, nil
}
