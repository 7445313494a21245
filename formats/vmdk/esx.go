package vmdk

import (
	"context"
	"encoding/binary"
	"math"

	"imgferry/formats"
	"imgferry/formats/mapped"
)

// extentKind is how a sparse extent is laid out. All are a grain directory of grain tables of grains.
type extentKind int

const (
	hostedExtent   extentKind = iota
	cowdExtent                // of ESX ("ESXi Host Sparse Extents"), createType vmfsSparse
	seSparseExtent            // space-efficient, of ESX 5.1 and later, createType seSparse
)

// Offsets in the header of an ESX sparse extent (COWDisk_Header). Fields have 32 bits.
const (
	offCOWDVersion   = 4
	offCOWDCapacity  = 12
	offCOWDGrainSize = 16
	offCOWDDirectory = 20
	offCOWDTables    = 24
	offCOWDUnclean   = 1648
	cowdHeaderLen    = 4 * sectorSize
	cowdVersion      = 1
	cowdGTEsPerGT    = 4096
)

// Offsets in the header of a space-efficient extent, which VMware has not published: they are as QEMU
// (block/vmdk.c) has them. Fields have 64 bits.
const (
	offSEVersion       = 8
	offSECapacity      = 16
	offSEGrainSize     = 24
	offSETableSize     = 32
	offSEFlags         = 40
	offSEReserved      = 48 // four fields
	offSEVolatile      = 80 // the volatile header, sectors
	offSEDirectory     = 128
	offSEDirectorySize = 136
	offSETables        = 144
	offSEGrains        = 192

	seVersion      = 0x200000001
	seGrainSectors = 8
	seTableSectors = 64
	seEntryBytes   = 8
	seGTEsPerGT    = seTableSectors * sectorSize / seEntryBytes

	magicSEVolatile = 0xcafecafe
	offSEReplay     = 24 // in the volatile header: the journal holds what was not written to its place
)

// Entries of space-efficient extents. In the directory, the upper half says that there is a table, and the
// lower one which. In a table, the upper four bits are the type of the grain, and the others its number,
// the lower twelve of them first.
const (
	seTableThere   = 0x10000000
	seTypeShift    = 60
	seTypeNone     = 0
	seTypeUnmapped = 1 // by the guest, which gets zeros
	seTypeZero     = 2
	seTypeStored   = 3
	seLowShift     = 48
	seLowBits      = 12
)

// parseCOWD reads the header of an ESX sparse extent, and judges nothing but the version.
func parseCOWD(p []byte) (header, error) {
	if len(p) < cowdHeaderLen {
		return header{}, formats.Corrupt(name, int64(len(p)), "the file ends within the header")
	}
	le := binary.LittleEndian
	h := header{
		kind:         cowdExtent,
		version:      le.Uint32(p[offCOWDVersion:]),
		capacity:     uint64(le.Uint32(p[offCOWDCapacity:])),
		grainSectors: uint64(le.Uint32(p[offCOWDGrainSize:])),
		gtesPerGT:    cowdGTEsPerGT,
		gdOffset:     uint64(le.Uint32(p[offCOWDDirectory:])),
		gdEntries:    uint64(le.Uint32(p[offCOWDTables:])),
		unclean:      le.Uint32(p[offCOWDUnclean:]) != 0,
	}
	if h.version != cowdVersion {
		return h, formats.Unsupported(name, offCOWDVersion, "version %d of an ESX sparse extent (known is %d)", h.version, cowdVersion)
	}
	return h, nil
}

// parseSESparse reads the header of a space-efficient extent, and refuses what is not known.
func parseSESparse(p []byte) (header, error) {
	if len(p) < headerLen {
		return header{}, formats.Corrupt(name, int64(len(p)), "the file ends within the header")
	}
	le := binary.LittleEndian
	h := header{
		kind:           seSparseExtent,
		version:        uint32(le.Uint64(p[offSEVersion:]) >> 32),
		capacity:       le.Uint64(p[offSECapacity:]),
		grainSectors:   le.Uint64(p[offSEGrainSize:]),
		gtesPerGT:      seGTEsPerGT,
		gdOffset:       le.Uint64(p[offSEDirectory:]),
		volatileHeader: le.Uint64(p[offSEVolatile:]),
		tablesAt:       le.Uint64(p[offSETables:]),
		grainsAt:       le.Uint64(p[offSEGrains:]),
	}
	// The size is in sectors; more entries than a directory may have need not be counted.
	h.gdEntries = min(le.Uint64(p[offSEDirectorySize:]), maxDirectoryBytes) * (sectorSize / seEntryBytes)
	if v := le.Uint64(p[offSEVersion:]); v != seVersion {
		return h, formats.Unsupported(name, offSEVersion, "version %#x of a space-efficient extent (known is %#x)", v, seVersion)
	}
	for _, f := range []struct {
		off  int64
		want uint64
		what string
	}{
		{offSEGrainSize, seGrainSectors, "grain size"}, {offSETableSize, seTableSectors, "grain table size"}, {offSEFlags, 0, "flags field"},
		{offSEReserved, 0, "reserved field"}, {offSEReserved + 8, 0, "reserved field"}, {offSEReserved + 16, 0, "reserved field"}, {offSEReserved + 24, 0, "reserved field"},
	} {
		if got := le.Uint64(p[f.off:]); got != f.want {
			return h, formats.Unsupported(name, f.off, "a space-efficient extent whose %s is %d (known is %d)", f.what, got, f.want)
		}
	}
	return h, nil
}

// checkESX is check for the extents of ESX.
func (h *header) checkESX(fileSize int64) error {
	fileSectors := uint64(fileSize) / sectorSize
	grainSize, capacity, entries := int64(offCOWDGrainSize), int64(offCOWDCapacity), int64(offCOWDTables)
	if h.kind == seSparseExtent {
		grainSize, capacity, entries = offSEGrainSize, offSECapacity, offSEDirectorySize
	}
	if err := h.checkGrains(grainSize, capacity); err != nil {
		return err
	}
	switch {
	case h.gdEntries < h.tables():
		return formats.Corrupt(name, entries, "the grain directory has %d entries, the capacity of %d sectors takes %d", h.gdEntries, h.capacity, h.tables())
	case h.kind == seSparseExtent && (h.tablesAt == 0 || h.tablesAt > fileSectors):
		return formats.Corrupt(name, offSETables, "the grain tables begin at sector %d, in the header or past the end of the file", h.tablesAt)
	case h.kind == seSparseExtent && (h.grainsAt == 0 || h.grainsAt > fileSectors):
		return formats.Corrupt(name, offSEGrains, "the grains begin at sector %d, in the header or past the end of the file", h.grainsAt)
	}
	return nil
}

// readVolatile reads the second header of a space-efficient extent, and refuses one whose journal must be
// replayed.
func (h *header) readVolatile(ctx context.Context, src formats.Source) error {
	if src.Size() < sectorSize || h.volatileHeader > uint64(src.Size()-sectorSize)/sectorSize {
		return formats.Corrupt(name, offSEVolatile, "the volatile header at sector %d reaches past the end of the file", h.volatileHeader)
	}
	at := int64(h.volatileHeader) * sectorSize
	p, err := readAt(ctx, src, at, sectorSize, "the volatile header")
	if err != nil {
		return err
	}
	if binary.LittleEndian.Uint64(p) != magicSEVolatile {
		return formats.Corrupt(name, at, "the volatile header's magic number is missing")
	}
	if binary.LittleEndian.Uint64(p[offSEReplay:]) != 0 {
		h.unclean = true
		return formats.Unsupported(name, at+offSEReplay, "the journal holds changes that were not written to their places: open the disk in ESX once")
	}
	return nil
}

// readExtent reads the header of a sparse extent of the kind that its first bytes p say, and checks it.
func readExtent(ctx context.Context, src formats.Source, p []byte) (h header, err error) {
	switch kindOf(p) {
	case cowdFile:
		h, err = parseCOWD(p)
	case seSparseFile:
		if h, err = parseSESparse(p); err == nil {
			err = h.readVolatile(ctx, src)
		}
	default:
		h, err = parseHeader(p, 0)
	}
	if err == nil {
		err = h.check(src.Size())
	}
	return h, err
}

// seGrain decodes a grain table entry of a space-efficient extent and judges nothing but its type.
func (h *header) seGrain(e uint64) grain {
	switch typ := e >> seTypeShift; {
	case e == 0:
		return grain{}
	case typ == seTypeUnmapped || typ == seTypeZero:
		return grain{kind: mapped.Zero}
	case typ != seTypeStored:
		return grain{bad: "has an unknown type"}
	}
	number := e<<(64-seTypeShift)>>(64-seTypeShift)>>seLowShift | e&(1<<seLowShift-1)<<seLowBits
	if number > maxDiskSectors/seGrainSectors-h.grainsAt {
		return grain{kind: mapped.Data, host: math.MaxInt64}
	}
	return grain{kind: mapped.Data, host: int64(h.grainsAt+number*seGrainSectors) * sectorSize}
}
