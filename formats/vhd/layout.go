package vhd

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"imgferry/formats"
)

// The sections named here are those of Microsoft's Virtual Hard Disk Image Format Specification 1.0.
// All integers are big-endian.

// name is what QEMU calls the format, after Virtual PC.
const name = "vpc"

const sectorSize = 512

// The footer ("Hard Disk Footer Format").
const (
	footerCookie       = "conectix"
	footerSize         = 512
	oldFooterSize      = 511 // as written before Virtual PC 2004: the last reserved byte is missing
	offFooterVersion   = 12
	offDataOffset      = 16 // of the dynamic disk header, bytes
	offTimeStamp       = 24 // of the disk, seconds since 2000
	offCreator         = 28
	creatorSize        = 4
	offCurrentSize     = 48
	offCylinders       = 56
	offHeads           = 58
	offSectors         = 59
	offDiskType        = 60
	offFooterChecksum  = 64
	offUniqueID        = 68
	offSavedState      = 84
	formatMajorVersion = 1
)

// Disk types. The others are reserved or deprecated.
const (
	typeFixed        = 2
	typeDynamic      = 3
	typeDifferencing = 4
)

// The dynamic disk header ("Dynamic Disk Header Format").
const (
	headerCookie      = "cxsparse"
	headerSize        = 1024
	offTableOffset    = 16
	offHeaderVersion  = 24
	offMaxEntries     = 28
	offBlockSize      = 32
	offHeaderChecksum = 36
	offParentID       = 40
	offParentStamp    = 56
	offParentName     = 64
	parentNameSize    = 512
	offLocators       = 576
	locatorCount      = 8
	locatorSize       = 24
	// Within a parent locator entry.
	offLocatorLength = 8
	offLocatorOffset = 16
	// platformRelative marks a path relative to this file, in UTF-16 of little-endian order.
	platformRelative = "W2ru"
	platformAbsolute = "W2ku"
	maxLocatorBytes  = 64 << 10 // Windows has no longer paths
)

// Limits.
const (
	// maxSize is 2040 GiB: the specification, QEMU and Hyper-V end there, because a table entry
	// counts sectors in 32 bits.
	maxSize = 0xff000000 * sectorSize
	// maxTableBytes bounds the table that is kept whole. Blocks of 256 KiB reach maxSize; nobody
	// writes smaller ones than 512 KiB.
	maxTableBytes = 32 << 20
	unusedEntry   = 0xffffffff
	// maxGeometry is the largest disk that the geometry can tell, in sectors. For a larger disk it
	// says this.
	maxGeometry = 65535 * 16 * 255
)

// footer is the footer of the file, or its copy.
type footer struct {
	version            uint32
	dataOffset         uint64
	stamp              uint32
	creator            string // 4 bytes
	current            uint64 // size in bytes
	cylinders          uint16
	heads, sectors     uint8
	diskType           uint32
	checksum, computed uint32
	id                 [16]byte
	saved              bool
}

// parseFooter reads the 512 or 511 bytes p. It judges nothing but the cookie: known is whether
// there is one.
func parseFooter(p []byte) (f footer, known bool) {
	if string(p[:len(footerCookie)]) != footerCookie {
		return f, false
	}
	be := binary.BigEndian
	f = footer{
		version:    be.Uint32(p[offFooterVersion:]),
		dataOffset: be.Uint64(p[offDataOffset:]),
		stamp:      be.Uint32(p[offTimeStamp:]),
		creator:    string(p[offCreator:][:creatorSize]),
		current:    be.Uint64(p[offCurrentSize:]),
		cylinders:  be.Uint16(p[offCylinders:]),
		heads:      p[offHeads],
		sectors:    p[offSectors],
		diskType:   be.Uint32(p[offDiskType:]),
		checksum:   be.Uint32(p[offFooterChecksum:]),
		computed:   checksum(p, offFooterChecksum),
		saved:      p[offSavedState] != 0,
	}
	copy(f.id[:], p[offUniqueID:])
	return f, true
}

// checksum is the one's complement of the sum of all bytes but those of the checksum itself, which
// lies at off.
func checksum(p []byte, off int) uint32 {
	var sum uint32
	for i, b := range p {
		if i < off || i >= off+4 {
			sum += uint32(b)
		}
	}
	return ^sum
}

// good reports whether the checksum is right.
func (f *footer) good() bool { return f.checksum == f.computed }

// check refuses a footer that this package can't read. It lies at offset at of the file.
func (f *footer) check(at int64) error {
	switch {
	case !f.good():
		return formats.Corrupt(name, at+offFooterChecksum, "the footer's checksum is %#x, must be %#x", f.checksum, f.computed)
	case f.version>>16 != formatMajorVersion:
		return formats.Unsupported(name, at+offFooterVersion, "version %d.%d (known is 1.0)", f.version>>16, f.version&0xffff)
	case f.diskType < typeFixed || f.diskType > typeDifferencing:
		return formats.Unsupported(name, at+offDiskType, "disk type %d (known are 2 to 4: fixed, dynamic, differencing)", f.diskType)
	case f.size() == 0:
		return formats.Corrupt(name, at+offCurrentSize, "the disk has no bytes")
	case f.size() > maxSize:
		return formats.Unsupported(name, at+offCurrentSize, "the virtual size is %d bytes, the format ends at %d", f.size(), int64(maxSize))
	}
	return nil
}

// geometry is the size that cylinders, heads and sectors make, in sectors.
func (f *footer) geometry() uint64 {
	return uint64(f.cylinders) * uint64(f.heads) * uint64(f.sectors)
}

// bySize reports whether the disk's size is the current size. Virtual PC goes by the geometry, which
// is mostly less. The creators that mean the size they say are those that QEMU (block/vpc.c) knows:
// Hyper-V, Disk2vhd, XenServer, XenConverter, Azure, and QEMU when told to. The largest geometry
// says "this or more", none says nothing.
func (f *footer) bySize() bool {
	switch f.creator {
	case "win ", "d2v ", "tap\x00", "CTXS", "wa\x00\x00", "qem2":
		return true
	}
	return f.geometry() == maxGeometry || f.geometry() == 0
}

// size is the virtual size in bytes.
func (f *footer) size() uint64 {
	if f.bySize() {
		return f.current
	}
	return f.geometry() * sectorSize
}

// subformat is the disk type in a word.
func (f *footer) subformat() string {
	switch f.diskType {
	case typeFixed:
		return "fixed"
	case typeDynamic:
		return "dynamic"
	case typeDifferencing:
		return "differencing"
	}
	return fmt.Sprintf("type %d", f.diskType)
}

// dynamicHeader is the second header of disks that are not fixed.
type dynamicHeader struct {
	tableOffset uint64 // of the block allocation table, bytes
	maxEntries  uint32
	blockSize   uint32 // bytes
	parentName  []byte // UTF-16
	locators    []locator
	parent      parentLink // of differencing disks
}

// locator says where another spelling of the parent's name lies.
type locator struct {
	platform string
	length   uint32 // bytes
	offset   uint64
}

// parseDynamicHeader reads the headerSize bytes p, which lie at offset at of the file.
func parseDynamicHeader(p []byte, at int64) (dynamicHeader, error) {
	be := binary.BigEndian
	if string(p[:len(headerCookie)]) != headerCookie {
		return dynamicHeader{}, formats.Corrupt(name, at, "the dynamic disk header is missing")
	}
	if got, want := be.Uint32(p[offHeaderChecksum:]), checksum(p, offHeaderChecksum); got != want {
		return dynamicHeader{}, formats.Corrupt(name, at+offHeaderChecksum, "the dynamic disk header's checksum is %#x, must be %#x", got, want)
	}
	if v := be.Uint32(p[offHeaderVersion:]); v>>16 != formatMajorVersion {
		return dynamicHeader{}, formats.Unsupported(name, at+offHeaderVersion, "version %d.%d of the dynamic disk header (known is 1.0)", v>>16, v&0xffff)
	}
	h := dynamicHeader{
		tableOffset: be.Uint64(p[offTableOffset:]),
		maxEntries:  be.Uint32(p[offMaxEntries:]),
		blockSize:   be.Uint32(p[offBlockSize:]),
		parentName:  p[offParentName:][:parentNameSize],
		parent:      parentLink{id: [16]byte(p[offParentID:]), stamp: be.Uint32(p[offParentStamp:])},
	}
	for i := range locatorCount {
		l := p[offLocators+i*locatorSize:][:locatorSize]
		h.locators = append(h.locators, locator{
			platform: string(l[:4]),
			length:   be.Uint32(l[offLocatorLength:]),
			offset:   be.Uint64(l[offLocatorOffset:]),
		})
	}
	return h, nil
}

// check refuses a table that doesn't fit the disk of size bytes or the file of fileSize bytes. The
// header lies at offset at.
func (h *dynamicHeader) check(at, size, fileSize int64) error {
	table := uint64(h.maxEntries) * 4
	switch {
	case bits.OnesCount32(h.blockSize) != 1 || h.blockSize < sectorSize:
		return formats.Corrupt(name, at+offBlockSize, "the block size is %d, must be a power of two and at least %d", h.blockSize, sectorSize)
	case h.needed(size) > int64(h.maxEntries):
		return formats.Corrupt(name, at+offMaxEntries, "the block allocation table has %d entries, too few for %d bytes", h.maxEntries, size)
	case h.tableOffset > uint64(fileSize) || table > uint64(fileSize)-h.tableOffset:
		return formats.Corrupt(name, at+offTableOffset, "the block allocation table reaches past the end of the file")
	case h.needed(size)*4 > maxTableBytes:
		return formats.Unsupported(name, at+offBlockSize, "the block allocation table takes %d bytes, at most %d are read: blocks of %d bytes are too small",
			h.needed(size)*4, maxTableBytes, h.blockSize)
	}
	return nil
}

// needed is how many table entries a disk of size bytes takes.
func (h *dynamicHeader) needed(size int64) int64 {
	return (size + int64(h.blockSize) - 1) / int64(h.blockSize)
}

// bitmapSize is the size of the sector bitmap that comes before each block's data, in bytes: a bit
// for each sector, in whole sectors ("Block Allocation Table and Data Blocks").
func (h *dynamicHeader) bitmapSize() int64 {
	const perSector = sectorSize * 8 * sectorSize // bytes of disk that a sector of bitmap describes
	return (int64(h.blockSize) + perSector - 1) / perSector * sectorSize
}

// stride is how many bytes of file a block takes, with its bitmap.
func (h *dynamicHeader) stride() int64 { return h.bitmapSize() + int64(h.blockSize) }
