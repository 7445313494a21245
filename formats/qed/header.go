package qed

import (
	"context"
	"errors"
	"math"

	"imgferry/formats"
)

// Format returns the QED format.
//
// Open refuses unknown feature bits with formats.ErrUnsupported, and with formats.ErrNotAllowed a
// backing file without a resolver or with a name that is no file name. An image whose need-check
// bit is set opens: QEMU's read-only open does the same, and Info says Dirty.
func Format() formats.Format {
	return formats.Format{Name: name, Probe: probe, Open: open, Info: info, Check: check}
}

func probe(src formats.Source) (bool, error) {
	var p [len(magic)]byte
	if src.Size() < int64(len(p)) {
		return false, nil
	}
	if err := formats.ReadFull(src, p[:], 0); err != nil {
		return false, err
	}
	return string(p[:]) == magic, nil
}

// front is what the header's clusters say.
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
	if err := f.check(src.Size()); err != nil || f.features&featureBacking == 0 {
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
	r := formats.Ref{Kind: formats.Backing, Name: f.backing}
	if f.features&featureNoProbe != 0 {
		r.Format = "raw"
	}
	return []formats.Ref{r}
}

func info(ctx context.Context, src formats.Source) (formats.Info, error) {
	f, err := readFront(ctx, src)
	if err != nil && !formats.BlamesImage(err) && !errors.Is(err, formats.ErrNotAllowed) {
		return formats.Info{}, err
	}
	in := formats.Info{
		Format:      name,
		VirtualSize: int64(min(f.imageSize, math.MaxInt64)),
		Dirty:       f.features&featureNeedCheck != 0,
		Refs:        f.refs(),
		Problem:     err,
	}
	if f.goodClusterSize() {
		in.ClusterSize = f.cluster()
		in.Specific = []formats.Property{{Name: "table size", Value: int64(f.tableSize)}}
	}
	return in, nil
}
