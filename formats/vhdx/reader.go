// Package vhdx reads Microsoft's VHDX images, fixed and dynamic, with logical sectors of 512 and of
// 4096 bytes.
//
// It doesn't write, and follows no name found in an image. What it refuses, by name: differencing
// disks, and files whose log was not replayed. It is not for VHD, which shares nothing with VHDX
// but the name.
//
// An open image holds at most 4 MiB of its block allocation table. Opening reads all of the table
// once, and takes a bit for each MiB of the file: 128 KiB for a file of 1 TiB, at most 32 MiB.
//
// As for QEMU, blocks that are not present, undefined or unmapped read as zeros. Where this package
// and QEMU differ:
//   - QEMU reads the first region table only; the second counts here if the first is damaged.
//   - Regions, metadata items and blocks that overlap, lie where they may not, or are listed twice
//     are errors; QEMU looks for some of these.
//   - QEMU's map shows the whole disk as data; here, blocks that are not present are zeros.
//   - QEMU (7.2) refuses logical sectors of 4096 bytes.
package vhdx

import (
	"context"
	"encoding/binary"
	"errors"

	"imgferry/formats"
	"imgferry/formats/mapped"
)

const (
	// sliceBytes of the table are read and cached at once.
	sliceBytes = 64 << 10
	// cachedSlices describe 512 GiB of disk even with the smallest blocks.
	cachedSlices = 64
)

func open(ctx context.Context, src formats.Source, _ formats.Resolver) (formats.Image, error) {
	s, err := readStructure(ctx, src)
	if err != nil {
		return nil, err
	}
	if err := s.checkParent(); err != nil {
		return nil, err
	}
	if _, err := s.verify(ctx, src, func(f formats.Finding) error {
		if f.Leak {
			return nil
		}
		return formats.Corrupt(name, f.Offset, "%s", f.What)
	}); err != nil {
		return nil, err
	}
	t := &table{structure: s, file: mapped.NewReader(ctx, name, src)}
	t.slices = mapped.NewCache(cachedSlices, t.loadSlice)
	return mapped.New(mapped.Config{Reader: t.file, Size: int64(s.size), Table: t}), nil
}

// table is the block allocation table of an open file, which has been verified.
type table struct {
	structure
	file   *mapped.Reader
	slices *mapped.Cache // by their offset in the table
}

// loadSlice reads a piece of the table; it is the load function of the cache.
func (t *table) loadSlice(off int64) ([]byte, error) {
	p := make([]byte, min(sliceBytes, t.entries()*8-off))
	return p, t.file.Read(p, int64(t.bat.off)+off, "the block allocation table")
}

// Map returns a run of blocks that are stored alike, within one slice of the table.
func (t *table) Map(off, limit int64) (mapped.Run, error) {
	bs := int64(t.blockSize)
	first := off / bs
	at := t.entry(first) * 8
	base := at - at%sliceBytes
	slice, err := t.slices.Get(base)
	if err != nil {
		return mapped.Run{}, err
	}
	entry := func(i int64) (mapped.Kind, int64, string) {
		return t.parseEntry(binary.LittleEndian.Uint64(slice[t.entry(i)*8-base:]))
	}
	kind, host, what := entry(first)
	if what != "" {
		return mapped.Run{}, t.badEntry(first, what)
	}
	n := int64(1) // blocks
	for ; (first+n)*bs < off+limit && t.entry(first+n)*8-base < int64(len(slice)); n++ {
		// A fault in a later entry is for the read that comes to it.
		k, h, what := entry(first + n)
		if what != "" || k != kind || k == mapped.Data && h != host+n*bs {
			break
		}
	}
	r := mapped.Run{Kind: kind, Length: min((first+n)*bs-off, limit)}
	if kind == mapped.Data {
		r.Host = host + off - first*bs
	}
	return r, nil
}

func (t *table) badEntry(i int64, what string) error {
	return formats.Corrupt(name, int64(t.bat.off)+t.entry(i)*8, "%s", t.entryFault(i, what))
}

// Decode is never called: nothing is encoded.
func (*table) Decode([]byte, int64, mapped.Run) error { return errors.ErrUnsupported }
