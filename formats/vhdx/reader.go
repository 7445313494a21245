// Package vhdx reads Microsoft's VHDX images, fixed, dynamic and differencing, with logical sectors of 512
// and of 4096 bytes.
//
// It doesn't write. A file whose log was not written to its places (the host crashed, or a machine still
// runs) is read as if it had been: the log is replayed in memory, the file stays as it is. The parent of a
// differencing disk is opened through the Resolver only, and must have the data write GUID that the
// disk was made for. It is not for VHD, which shares nothing with VHDX but the name.
//
// An open image holds at most 4 MiB of its block allocation table and sector bitmaps. Opening reads all of the
// table once, and takes a bit for each MiB of the file: 128 KiB for a file of 1 TiB, at most 32 MiB. A log to
// be replayed stays in memory: 1 MiB mostly, at most 16 MiB. A list of what it changes takes a few KiB mostly, and
// less than three times its length, or six times while opening.
//
// As for QEMU, blocks that are not present, undefined or unmapped read as zeros; in a differencing disk, those
// that are not present read as the parent does. Where this package and QEMU differ:
//   - QEMU (7.2) reads no differencing disks, and no file with a log to be replayed unless it may write to it.
//   - QEMU reads the first region table only; the second counts here if the first is damaged.
//   - Regions, metadata items and blocks that overlap, lie where they may not, or are listed twice
//     are errors; QEMU looks for some of these.
//   - QEMU's map shows the whole disk as data; here, blocks that are not present are zeros.
//   - QEMU (7.2) refuses logical sectors of 4096 bytes.
//
// A parent may be smaller than the disk, which is zeros behind its end, or larger: VHDX disks can be resized.
package vhdx

import (
	"context"
	"encoding/binary"
	"errors"

	"imgferry/formats"
	"imgferry/formats/mapped"
)

const (
	// sliceBytes of the table and of sector bitmaps are read and cached at once.
	sliceBytes = 64 << 10
	// cachedSlices describe 512 GiB of disk even with the smallest blocks, or 16 GiB of partial blocks.
	cachedSlices = 64
)

func open(ctx context.Context, src formats.Source, res formats.Resolver) (formats.Image, error) {
	s, err := readStructure(ctx, src)
	if err != nil {
		return nil, err
	}
	return s.open(ctx, res)
}

// open opens the disk, with its parent if it has one.
func (s *structure) open(ctx context.Context, res formats.Resolver) (formats.Image, error) {
	if _, err := s.verify(ctx, func(f formats.Finding) error {
		if f.Leak {
			return nil
		}
		return formats.Corrupt(name, f.Offset, "%s", f.What)
	}); err != nil {
		return nil, err
	}
	c := mapped.Config{Size: int64(s.size)}
	if s.hasParent {
		var err error
		if c.Below, err = s.openParent(ctx, res); err != nil {
			return nil, err
		}
		c.BelowName = s.locator.parent
	}
	t := &table{structure: *s, file: mapped.NewReader(ctx, name, s.src)}
	t.slices = mapped.NewCache(cachedSlices, t.loadSlice)
	c.Reader, c.Table = t.file, t
	return mapped.New(c), nil
}

// table is the block allocation table of an open file, which has been verified.
type table struct {
	structure
	file   *mapped.Reader
	slices *mapped.Cache // of table and sector bitmaps, by their offset in the file
}

// loadSlice reads a piece of the table or of a sector bitmap; it is the load function of the cache.
func (t *table) loadSlice(off int64) ([]byte, error) {
	p := make([]byte, min(sliceBytes, t.fileSize-off))
	return p, t.file.Read(p, off, "the block allocation table or a sector bitmap")
}

// slice returns the slice with the byte at off of the file, and where in the file it begins.
func (t *table) slice(off int64) (p []byte, base int64, err error) {
	base = off - off%sliceBytes
	p, err = t.slices.Get(base)
	return p, base, err
}

// Map returns a run of blocks that are stored alike, within one slice of the table.
func (t *table) Map(off, limit int64) (mapped.Run, error) {
	bs := int64(t.blockSize)
	first := off / bs
	slice, base, err := t.slice(t.entryAt(t.entry(first)))
	if err != nil {
		return mapped.Run{}, err
	}
	entry := func(i int64) (block, string) {
		return t.parseEntry(binary.LittleEndian.Uint64(slice[t.entryAt(t.entry(i))-base:]))
	}
	b, what := entry(first)
	if what != "" {
		return mapped.Run{}, t.badEntry(first, what)
	}
	if b.partial {
		return t.mapPartial(off, min(limit, (first+1)*bs-off), first, b.host)
	}
	n := int64(1) // blocks
	for ; (first+n)*bs < off+limit && t.entryAt(t.entry(first+n))-base < int64(len(slice)); n++ {
		// A fault in a later entry is for the read that comes to it.
		next, what := entry(first + n)
		if what != "" || next.kind != b.kind || next.partial || b.kind == mapped.Data && next.host != b.host+n*bs {
			break
		}
	}
	return t.run(b.kind, b.host+off-first*bs, min((first+n)*bs-off, limit)), nil
}

// mapPartial returns the run of sectors at off that are all stored, or all not. The limit bytes there are all
// of payload block i, which is partially present and lies at host.
func (t *table) mapPartial(off, limit, i, host int64) (mapped.Run, error) {
	at := t.entryAt(t.bitmapIndex(i))
	slice, base, err := t.slice(at)
	if err != nil {
		return mapped.Run{}, err
	}
	bitmap := entryOffset(binary.LittleEndian.Uint64(slice[at-base:]))
	sectorSize := int64(t.logicalSector)
	sector := off / sectorSize % (bitmapBlockBytes * 8) // within the chunk
	if slice, base, err = t.slice(bitmap + sector/8); err != nil {
		return mapped.Run{}, err
	}
	stored, n := mapped.BitRun(slice, sector-(base-bitmap)*8, (off%sectorSize+limit+sectorSize-1)/sectorSize)
	length := min(n*sectorSize-off%sectorSize, limit)
	if !stored {
		return mapped.Run{Kind: mapped.Hole, Length: length}, nil
	}
	return t.run(mapped.Data, host+off-i*int64(t.blockSize), length), nil
}

// run is a run that lies at host of the file as it reads, which may not be the file as it is.
func (t *table) run(kind mapped.Kind, host, length int64) mapped.Run {
	r := mapped.Run{Kind: kind, Length: length}
	if kind != mapped.Data {
		return r
	}
	r.Host = host
	if t.replayed != nil {
		n, asInFile := t.replayed.run(host, length)
		r.Length, r.Unplaced = n, !asInFile
	}
	return r
}

// entryAt is where in the file entry index of the table lies.
func (s *structure) entryAt(index int64) int64 { return int64(s.bat.off) + index*8 }

func (t *table) badEntry(i int64, what string) error {
	return formats.Corrupt(name, t.entryAt(t.entry(i)), "%s", t.entryFault(i, what))
}

// Decode is never called: nothing is encoded.
func (*table) Decode([]byte, int64, mapped.Run) error { return errors.ErrUnsupported }
