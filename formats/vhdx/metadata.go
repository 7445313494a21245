package vhdx

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
	"unicode/utf16"

	"imgferry/formats"
)

// The metadata region (2.6).
const (
	metadataSign       = "metadata"
	metadataTableBytes = 64 << 10
	offMetadataCount   = 10
	metadataEntries    = 32
	metadataEntryBytes = 32
	maxItemBytes       = mib
	flagUser           = 1 << 0
	flagRequired       = 1 << 2
	paramHasParent     = 1 << 1
	paramLeaveBlocks   = 1 << 0
)

// Limits of 2.6.2.1 and 2.6.2.2.
const (
	minBlockSize = mib
	maxBlockSize = 256 * mib
	maxSize      = 64 << 40
)

// item is an entry of the metadata table (2.6.1.2).
type item struct {
	id           guid
	offset, size uint32 // within the metadata region, bytes
	flags        uint32
	at           int64 // where the entry lies, bytes
}

// parseItems reads the metadata table of metadataTableBytes, which lies at offset at of the file.
func parseItems(p []byte, at int64) ([]item, error) {
	le := binary.LittleEndian
	if string(p[:len(metadataSign)]) != metadataSign {
		return nil, formats.Corrupt(name, at, "the metadata table's signature is missing")
	}
	n := le.Uint16(p[offMetadataCount:])
	if n > maxEntries {
		return nil, formats.Corrupt(name, at+offMetadataCount, "the metadata table has %d entries, at most %d are allowed", n, maxEntries)
	}
	var list []item
	for i := range int(n) {
		off := metadataEntries + i*metadataEntryBytes
		e := p[off:][:metadataEntryBytes]
		list = append(list, item{
			id:     guid(e),
			offset: le.Uint32(e[16:]),
			size:   le.Uint32(e[20:]),
			flags:  le.Uint32(e[24:]),
			at:     at + int64(off),
		})
	}
	return list, nil
}

// checkItems refuses items outside the metadata region of size bytes, over each other, or listed
// twice.
func checkItems(items []item, size uint64) error {
	type key struct {
		id   guid
		user uint32
	}
	seen := map[key]bool{}
	for _, i := range items {
		k := key{i.id, i.flags & flagUser}
		switch {
		case seen[k]:
			return formats.Corrupt(name, i.at, "the metadata item %v is listed twice", i.id)
		case i.size == 0 && i.offset == 0:
		case i.size > maxItemBytes || i.offset < metadataTableBytes || uint64(i.offset)+uint64(i.size) > size:
			return formats.Corrupt(name, i.at, "the metadata item %v, %d bytes at %d, lies outside its region", i.id, i.size, i.offset)
		}
		seen[k] = true
	}
	byOffset := slices.Clone(items)
	slices.SortFunc(byOffset, func(a, b item) int { return cmp.Compare(a.offset, b.offset) })
	for n := 1; n < len(byOffset); n++ {
		if a, b := byOffset[n-1], byOffset[n]; a.offset+a.size > b.offset && b.size > 0 {
			return formats.Corrupt(name, b.at, "the metadata items %v and %v overlap", a.id, b.id)
		}
	}
	return nil
}

// disk is what the metadata items say (2.6.2).
type disk struct {
	blockSize      uint32 // bytes
	leaveBlocks    bool   // a fixed disk
	hasParent      bool   // a differencing disk
	size           uint64 // bytes
	id             guid
	logicalSector  uint32 // bytes
	physicalSector uint32
	locator        locator
}

// known are the items, each with its size in bytes: a parent locator has at least that.
var known = []struct {
	id    guid
	what  string
	size  uint32
	parse func(d *disk, p []byte)
}{
	{guidFileParameters, "file parameters", 8, func(d *disk, p []byte) {
		d.blockSize = binary.LittleEndian.Uint32(p)
		d.leaveBlocks = p[4]&paramLeaveBlocks != 0
		d.hasParent = p[4]&paramHasParent != 0
	}},
	{guidDiskSize, "virtual disk size", 8, func(d *disk, p []byte) { d.size = binary.LittleEndian.Uint64(p) }},
	{guidDiskID, "virtual disk id", 16, func(d *disk, p []byte) { d.id = guid(p) }},
	{guidLogicalSector, "logical sector size", 4, func(d *disk, p []byte) { d.logicalSector = binary.LittleEndian.Uint32(p) }},
	{guidPhysicalSector, "physical sector size", 4, func(d *disk, p []byte) { d.physicalSector = binary.LittleEndian.Uint32(p) }},
	{guidParentLocator, "parent locator", locatorHeader, func(d *disk, p []byte) { d.locator.raw = p }},
}

// check refuses sizes that are not allowed. off is where the metadata lies.
func (d *disk) check(off int64) error {
	switch {
	case d.blockSize < minBlockSize || d.blockSize > maxBlockSize || d.blockSize&(d.blockSize-1) != 0:
		return formats.Corrupt(name, off, "the block size is %d, must be a power of two from %d to %d", d.blockSize, minBlockSize, maxBlockSize)
	case d.logicalSector != 512 && d.logicalSector != 4096:
		return formats.Corrupt(name, off, "the logical sector size is %d, must be 512 or 4096", d.logicalSector)
	case d.physicalSector != 512 && d.physicalSector != 4096:
		return formats.Corrupt(name, off, "the physical sector size is %d, must be 512 or 4096", d.physicalSector)
	case d.size == 0 || d.size > maxSize:
		return formats.Corrupt(name, off, "the virtual size is %d, must be 1 to %d", d.size, int64(maxSize))
	case d.size%uint64(d.logicalSector) != 0:
		return formats.Corrupt(name, off, "the virtual size %d is not a multiple of the logical sector size %d", d.size, d.logicalSector)
	case d.hasParent && d.locator.raw == nil:
		return formats.Corrupt(name, off, "the disk has a parent disk, but no parent locator")
	}
	return nil
}

// subformat is what kind of disk it is, in a word.
func (d *disk) subformat() string {
	switch {
	case d.hasParent:
		return "differencing"
	case d.leaveBlocks:
		return "fixed"
	}
	return "dynamic"
}

// decodeUTF16 reads p up to its end or the first NUL.
func decodeUTF16(p []byte) string {
	var units []uint16
	for ; len(p) >= 2; p = p[2:] {
		units = append(units, binary.LittleEndian.Uint16(p))
	}
	s, _, _ := strings.Cut(string(utf16.Decode(units)), "\x00")
	return s
}
