// Package vhd reads Microsoft's VHD images, fixed, dynamic and differencing, which QEMU calls vpc.
//
// The parent of a differencing disk is opened through the Resolver only. It must have the unique id that the disk was
// made for, must not be younger than the disk says, and have the same size, as Windows demands. It is
// not for VHDX, which shares nothing with VHD but the name.
//
// An open image holds its block allocation table, at most 32 MiB: 4 MiB for the largest disk of the
// usual 2 MiB blocks. Opening takes twice that for a moment. A differencing disk holds at most 4 MiB of sector
// bitmaps besides.
//
// As for QEMU, an allocated block of a dynamic disk is data from end to end: the bits of its sector
// bitmap have a meaning in differencing disks only. Where this package and QEMU differ:
//   - QEMU (7.2) reads no differencing disks.
//   - The footer at the end counts, as in the specification, and the copy at the start only if the
//     footer is damaged. QEMU reads the copy first, and the footer only if there is none.
//   - Footers of 511 bytes are read. Azure's "wa" disks go by their current size, as from QEMU 10 on.
//   - The dynamic disk header's checksum must be right, and blocks must overlap neither each other
//     nor header, table and footer.
//   - The holes of a sparse fixed disk's file are zeros, as in a raw file; QEMU's map calls them data that
//     is zero.
//   - A geometry of 0 means the current size, and a current size that is not a multiple of 512 is
//     kept; QEMU rounds it down.
package vhd

import (
	"context"
	"encoding/binary"
	"errors"
	"math/bits"

	"imgferry/formats"
	"imgferry/formats/mapped"
)

func open(ctx context.Context, src formats.Source, res formats.Resolver) (formats.Image, error) {
	h, err := readHeaders(ctx, src)
	if err != nil {
		return nil, err
	}
	return h.open(ctx, src, res)
}

// open opens the disk in src, with its parent if it has one.
func (h *headers) open(ctx context.Context, src formats.Source, res formats.Resolver) (formats.Image, error) {
	c := mapped.Config{Size: h.size(), Table: mapped.Flat{}, Holes: true}
	if h.diskType == typeFixed {
		c.Reader = mapped.NewReader(ctx, name, src)
		return mapped.New(c), nil
	}
	b, err := readBlocks(ctx, src, *h)
	if err != nil {
		return nil, err
	}
	c.Table, c.Holes = b, false
	if h.diskType == typeDifferencing {
		if c.Below, err = h.openParent(ctx, res); err != nil {
			return nil, err
		}
		c.BelowName = h.parent.name
	}
	c.Reader = mapped.NewReader(ctx, name, src)
	if h.diskType == typeDifferencing {
		c.Table = newDifferences(b, c.Reader)
	}
	return mapped.New(c), nil
}

// blocks is the block allocation table of a dynamic disk.
type blocks struct {
	headers
	bat []byte // as in the file; only the entries that the virtual size needs
}

// loadTable reads the block allocation table, which has been found to lie in the file.
func loadTable(ctx context.Context, src formats.Source, h headers) (blocks, error) {
	b := blocks{h, make([]byte, h.needed(h.size())*4)}
	return b, formats.ReadAt(ctx, name, src, b.bat, int64(h.tableOffset), "the block allocation table")
}

// readBlocks is loadTable for a table without faults: after it, Map need not look for them.
func readBlocks(ctx context.Context, src formats.Source, h headers) (blocks, error) {
	b, err := loadTable(ctx, src, h)
	if err != nil {
		return b, err
	}
	err = b.verify(ctx, func(f formats.Finding) error { return formats.Corrupt(name, f.Offset, "%s", f.What) })
	return b, err
}

// start returns where block i lies in the file, with its bitmap, and whether it is stored.
func (b blocks) start(i int64) (off int64, stored bool) {
	e := binary.BigEndian.Uint32(b.bat[i*4:])
	return int64(e) * sectorSize, e != unusedEntry
}

// count is how many blocks the disk has.
func (b blocks) count() int64 { return int64(len(b.bat)) / 4 }

// Map returns the rest of the block at off, or of the run of blocks that are not stored. Bitmaps lie
// between the blocks, so that data never goes on from one to the next.
func (b blocks) Map(off, limit int64) (mapped.Run, error) {
	shift := bits.TrailingZeros32(b.blockSize)
	i := off >> shift
	in := off - i<<shift
	start, stored := b.start(i)
	if stored {
		return mapped.Run{Kind: mapped.Data, Length: min(int64(b.blockSize)-in, limit), Host: start + b.bitmapSize() + in}, nil
	}
	end := i + 1
	for end < b.count() && end<<shift < off+limit {
		if _, stored := b.start(end); stored {
			break
		}
		end++
	}
	return mapped.Run{Kind: mapped.Zero, Length: min(end<<shift-off, limit)}, nil
}

// Decode is never called: nothing is encoded.
func (blocks) Decode([]byte, int64, mapped.Run) error { return errors.ErrUnsupported }
