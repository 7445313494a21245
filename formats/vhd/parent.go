package vhd

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/bits"

	"imgferry/formats"
	"imgferry/formats/mapped"
)

const (
	// bitmapSlice is how much of a sector bitmap is read and cached at once, in bytes; most bitmaps
	// have a sector.
	bitmapSlice = 4 << 10
	// bitmapCacheBytes describe 16 GiB of disk at least.
	bitmapCacheBytes   = 4 << 20
	bitmapCacheEntries = 4096 // small ones cost more in bookkeeping than in bytes
	// clockSlack is by how many seconds a parent may be younger than the child says that it was
	// changed: some programs wrote local time.
	clockSlack = 24 * 60 * 60
)

// parentLink is what a differencing disk says of its parent ("Dynamic Disk Header Format").
type parentLink struct {
	at    int64 // where the dynamic disk header lies, bytes
	id    [16]byte
	stamp uint32 // seconds since 2000, 0 if not known
	name  string
}

// readParent reads the parent's names: the relative path if it can be followed, then the absolute path,
// then the name in the header ("Identification of the Parent Hard Disk Image").
func (h *headers) readParent(ctx context.Context, src formats.Source, at int64) error {
	names := make([]string, 0, 3)
	size := uint64(src.Size())
	for _, platform := range []string{platformRelative, platformAbsolute} {
		for i, l := range h.locators {
			if l.platform != platform {
				continue
			}
			entry := at + offLocators + int64(i)*locatorSize
			if l.length > maxLocatorBytes || l.offset > size || uint64(l.length) > size-l.offset {
				return formats.Corrupt(name, entry, "the parent disk's name, %d bytes at %d, is too long or not in the file", l.length, l.offset)
			}
			p := make([]byte, l.length)
			if err := formats.ReadAt(ctx, name, src, p, int64(l.offset), "the parent disk's name"); err != nil {
				return err
			}
			s, ok := mapped.DecodeName(p, binary.LittleEndian)
			if !ok {
				return formats.Corrupt(name, entry, "the parent disk's name is not UTF-16")
			}
			names = append(names, s)
		}
	}
	s, ok := mapped.DecodeName(h.parentName, binary.BigEndian)
	if !ok {
		return formats.Corrupt(name, at+offParentName, "the parent disk's name is not UTF-16")
	}
	h.parent.at, h.parent.name = at, mapped.BestName(append(names, s)...)
	return nil
}

// parentRef names the parent disk.
func (h *headers) parentRef() formats.Ref {
	return formats.Ref{Kind: formats.Parent, Name: h.parent.name, Format: name}
}

// refs lists the other files that the image needs.
func (h *headers) refs() []formats.Ref {
	if h.diskType != typeDifferencing {
		return nil
	}
	return []formats.Ref{h.parentRef()}
}

// openParent opens the parent disk, which must be the one that the disk was made for.
func (h *headers) openParent(ctx context.Context, res formats.Resolver) (formats.Image, error) {
	ref := h.parentRef()
	return mapped.OpenParent(ctx, name, h.parent.at, ref, res, func(src formats.Source, below formats.Resolver) (formats.Image, error) {
		p, err := readHeaders(ctx, src)
		if err != nil {
			return nil, mapped.InFile(ref.Name, err)
		}
		if err := h.matches(&p); err != nil {
			return nil, err
		}
		img, err := p.open(ctx, src, below)
		if err != nil {
			return nil, mapped.InFile(ref.Name, err)
		}
		return img, nil
	})
}

// matches refuses a parent that is another disk than the one meant. The time that a child keeps of its
// parent is that of the parent's last change in Windows, which is nowhere in the parent, and that of its
// footer in VirtualBox. No parent is older than the one and younger than the other.
func (h *headers) matches(p *headers) error {
	switch {
	case p.id != h.parent.id:
		return formats.Corrupt(name, h.parent.at+offParentID, "the parent disk %q has the unique id %s, the disk is based on %s",
			h.parent.name, uuid(p.id), uuid(h.parent.id))
	case h.parent.stamp != 0 && uint64(h.parent.stamp)+clockSlack < uint64(p.stamp):
		return formats.Corrupt(name, h.parent.at+offParentStamp, "the parent disk %q was made at time stamp %d, after the one of the disk's parent, %d: it is another disk",
			h.parent.name, p.stamp, h.parent.stamp)
	case p.size() != h.size() && p.current != h.current:
		return formats.Corrupt(name, h.where.off+offCurrentSize, "the disk has %d bytes, its parent disk %q %d: they must be equal", h.size(), h.parent.name, p.size())
	}
	return nil
}

// uuid is the usual spelling of an id.
func uuid(id [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

// differences is the table of a differencing disk: its blocks hold only some of their sectors.
type differences struct {
	blocks
	file    *mapped.Reader
	bitmaps *mapped.Cache // slices of sector bitmaps by their offset in the file; the lowest bit comes first
}

func newDifferences(b blocks, file *mapped.Reader) *differences {
	d := &differences{blocks: b, file: file}
	d.bitmaps = mapped.NewCache(int(min(bitmapCacheBytes/d.sliceSize(), bitmapCacheEntries)), d.loadBitmap)
	return d
}

// sliceSize divides the size of a bitmap, in bytes.
func (d *differences) sliceSize() int64 { return min(d.bitmapSize(), bitmapSlice) }

// loadBitmap reads a slice of a sector bitmap; it is the load function of the cache. The first sector is
// the highest bit of a byte ("Block Allocation Table and Data Blocks").
func (d *differences) loadBitmap(off int64) ([]byte, error) {
	p := make([]byte, d.sliceSize())
	err := d.file.Read(p, off, "a sector bitmap")
	for i := range p {
		p[i] = bits.Reverse8(p[i])
	}
	return p, err
}

// Map returns the run of sectors at off that are all stored in this file, or all the parent's.
func (d *differences) Map(off, limit int64) (mapped.Run, error) {
	i := off / int64(d.blockSize)
	start, stored := d.start(i)
	if !stored {
		r, err := d.blocks.Map(off, limit)
		r.Kind = mapped.Hole
		return r, err
	}
	in := off - i*int64(d.blockSize)
	limit = min(limit, int64(d.blockSize)-in)
	sector, perSlice := in/sectorSize, d.sliceSize()*8
	slice, err := d.bitmaps.Get(start + sector/perSlice*d.sliceSize())
	if err != nil {
		return mapped.Run{}, err
	}
	here, n := mapped.BitRun(slice, sector%perSlice, (in%sectorSize+limit+sectorSize-1)/sectorSize)
	r := mapped.Run{Kind: mapped.Hole, Length: min(n*sectorSize-in%sectorSize, limit)}
	if here {
		r.Kind, r.Host = mapped.Data, start+d.bitmapSize()+in
	}
	return r, nil
}
