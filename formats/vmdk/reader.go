// Package vmdk reads VMware's virtual disks: sparse disks in one file, compressed streams of them,
// and descriptors that name flat or sparse extent files.
//
// It follows no name by itself: extent files and the disk that a disk is based on (snapshots, linked clones) are
// opened by the Resolver. A descriptor's createType must allow the type of its extents, and the parent must have the
// CID that the disk was made for, and its size. The journal of a space-efficient extent is not replayed.
//
// An open disk holds its grain directories (at most 32 MiB over all extents), about 4 MiB of grain
// tables and 4 MiB of decompressed grains; each read under way adds at most 4 MiB of compressed
// bytes. A stream whose grain directory is lost takes up to 32 MiB more for the tables rebuilt
// from its markers.
//
// Where this package and QEMU differ, it is stricter: grains and tables beyond the end of the file,
// a marker of another grain, a text-mode transfer, contradicting or repeated values, an extent
// file that is too short, an extent without its descriptor, and a parent of another size are refused; a name
// that is an address is never followed. It is more complete in that it reads extents of zeros and read-only ones
// (QEMU leaves them out, and moves what follows), the redundant grain directory, and streams
// without a grain directory. What was never written in a flat extent's sparse file is known to be
// zeros; QEMU's map also calls it data.
package vmdk

import (
	"context"
	"errors"
	"sort"

	"imgferry/formats"
	"imgferry/formats/mapped"
)

func open(ctx context.Context, src formats.Source, res formats.Resolver) (formats.Image, error) {
	h, err := readHead(ctx, src)
	if err != nil {
		return nil, err
	}
	return h.open(ctx, src, res)
}

// open opens the disk in src, with its extents and the disk that it is based on.
func (h *head) open(ctx context.Context, src formats.Source, res formats.Resolver) (_ formats.Image, err error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	var s *sparse
	var d *disk
	if h.own() {
		s, err = openSparse(ctx, src, h.header, 1)
	} else {
		d, err = openExtents(ctx, res, h.descriptor)
	}
	if err != nil {
		return nil, err
	}
	c := mapped.Config{BelowName: h.parentRef().Name}
	if h.based() {
		if c.Below, err = h.openParent(ctx, res, h.size()); err != nil {
			if d != nil {
				d.close()
			}
			return nil, err
		}
	}
	c.Reader = mapped.NewReader(ctx, name, src)
	if s != nil {
		s.file = c.Reader
		c.Size, c.Table, c.Unit = s.length, s, h.header.grainBytes()
	} else {
		c.Size, c.Table, c.Files, c.Holes = d.size(), d, d.attach(c.Reader), true
	}
	return mapped.New(c), nil
}

// disk is the table of a disk of several extents: their tables, end to end.
type disk struct {
	extents []extent
	files   []extentFile
}

// extent is a stretch of the disk with a table of its own, whose offsets begin at 0.
type extent struct {
	start, length int64 // bytes of disk
	file          string
	table         mapped.Table
}

// extentFile is a file with extents in it.
type extentFile struct {
	name string
	src  formats.Source
}

func (d *disk) size() int64 {
	last := d.extents[len(d.extents)-1]
	return last.start + last.length
}

// at returns the extent that holds the disk offset off.
func (d *disk) at(off int64) *extent {
	i := sort.Search(len(d.extents), func(i int) bool { return d.extents[i].start > off })
	return &d.extents[i-1]
}

// Map asks the extent's table.
func (d *disk) Map(off, limit int64) (mapped.Run, error) {
	e := d.at(off)
	r, err := e.table.Map(off-e.start, min(limit, e.start+e.length-off))
	return r, e.named(err)
}

// Decode asks the extent's table.
func (d *disk) Decode(p []byte, off int64, r mapped.Run) error {
	e := d.at(off)
	return e.named(e.table.Decode(p, off-e.start, r))
}

// named adds the extent's file to err: offsets in errors count in that file.
func (e *extent) named(err error) error {
	if err == nil || e.file == "" {
		return err
	}
	return mapped.InFile(e.file, err)
}

// zeros is an extent of nothing.
type zeros struct{}

// Map says so.
func (zeros) Map(_, limit int64) (mapped.Run, error) {
	return mapped.Run{Kind: mapped.Zero, Length: limit}, nil
}

// Decode is never called: nothing is encoded.
func (zeros) Decode([]byte, int64, mapped.Run) error { return errors.ErrUnsupported }
