package vmdk

import (
	"encoding/binary"
	"math"

	"imgferry/formats"
)

// The sections named here are those of VMware's technical note "Virtual Disk Format 5.0". All
// integers are little-endian, and offsets and sizes in the structures count sectors.

const name = "vmdk"

// The first bytes of the kinds of files that make up disks.
const (
	magicSparse   = "KDMV"                             // hosted sparse extent
	magicCOWD     = "COWD"                             // ESX sparse extent ("ESXi Host Sparse Extents")
	magicSESparse = "\xbe\xba\xfe\xca\x00\x00\x00\x00" // space-efficient sparse extent, as QEMU knows it
)

const sectorSize = 512

// Offsets in the header of a hosted sparse extent ("Hosted Sparse Extents", SparseExtentHeader).
const (
	offMagic            = 0
	offVersion          = 4
	offFlags            = 8
	offCapacity         = 12
	offGrainSize        = 20
	offDescriptorOffset = 28
	offDescriptorSize   = 36
	offGTEsPerGT        = 44
	offRGDOffset        = 48
	offGDOffset         = 56
	offOverHead         = 64
	offUncleanShutdown  = 72
	offNewlines         = 73
	offCompression      = 77
	headerLen           = sectorSize
)

// Flags. VMware's readers ignore unknown bits of the lower half, and refuse those of the upper.
const (
	flagNewlines     = 1 << 0 // the newline bytes are there
	flagRedundant    = 1 << 1 // there is a redundant grain directory
	flagZeroedGrains = 1 << 2 // grain table entry 1 is a grain of zeros
	flagCompressed   = 1 << 16
	flagMarkers      = 1 << 17
	flagsIgnorable   = 0x0000ffff
)

// newlines are what a transfer as text changes.
const newlines = "\n \r\n"

// gdAtEnd as the grain directory's offset says that the footer knows it ("Stream-Optimized
// Compressed Sparse Extents").
const gdAtEnd = math.MaxUint64

const (
	minVersion       = 1
	maxVersion       = 3
	compressionZlib  = 1
	entryBytes       = 4 // of grain directories and tables of hosted extents
	entryZeroedGrain = 1
)

// Limits.
const (
	// maxGTEsPerGT is QEMU's limit; VMware writes no other number.
	maxGTEsPerGT = 512
	// maxGrainSectors is QEMU's limit: 1 GiB. VMware's is 128 sectors.
	maxGrainSectors = 0x200000
	// maxPackedSectors bounds compressed grains, which are decoded as a whole: 2 MiB.
	maxPackedSectors = 4096
	// maxDirectoryBytes bounds a disk's grain directories, which are kept whole. At the usual sizes
	// they describe 256 TiB.
	maxDirectoryBytes = 32 << 20
	// maxDescriptorBytes is QEMU's limit. VMware reserves 10 KiB.
	maxDescriptorBytes = 1 << 20
	// maxAddressed is the end of what tables' entries can address, in bytes of file: 2 TiB.
	maxAddressed = math.MaxUint32 * sectorSize
	// maxDiskSectors keeps sizes in bytes within 63 bits.
	maxDiskSectors = math.MaxInt64 / sectorSize
)

// header is a SparseExtentHeader, or what the header of an ESX extent says of the same things.
type header struct {
	kind             extentKind
	version          uint32
	flags            uint32
	capacity         uint64 // of the extent, sectors
	grainSectors     uint64
	descriptorOffset uint64 // sectors; 0: no descriptor
	descriptorSize   uint64 // sectors
	gtesPerGT        uint32
	rgdOffset        uint64 // redundant grain directory, sectors
	gdOffset         uint64 // grain directory, sectors, or gdAtEnd
	stream           bool   // gdOffset is gdAtEnd, or the footer's: an end-of-stream marker ends the file
	overHead         uint64 // sectors before the first grain
	unclean          bool
	newlines         string
	compression      uint16
	// Of ESX extents:
	gdEntries uint64 // entries of the grain directory
	// Where things of space-efficient extents begin, sectors.
	volatileHeader, tablesAt, grainsAt uint64
}

// parseHeader reads the fields of the sector p and judges none of them but the magic. at is where p
// lies in the file.
func parseHeader(p []byte, at int64) (header, error) {
	if len(p) < headerLen {
		return header{}, formats.Corrupt(name, at+int64(len(p)), "the file ends within the header")
	}
	if string(p[offMagic:][:len(magicSparse)]) != magicSparse {
		return header{}, formats.Corrupt(name, at, "not the header of a sparse extent: the magic number is missing")
	}
	le := binary.LittleEndian
	gd := le.Uint64(p[offGDOffset:])
	return header{
		version:          le.Uint32(p[offVersion:]),
		flags:            le.Uint32(p[offFlags:]),
		capacity:         le.Uint64(p[offCapacity:]),
		grainSectors:     le.Uint64(p[offGrainSize:]),
		descriptorOffset: le.Uint64(p[offDescriptorOffset:]),
		descriptorSize:   le.Uint64(p[offDescriptorSize:]),
		gtesPerGT:        le.Uint32(p[offGTEsPerGT:]),
		rgdOffset:        le.Uint64(p[offRGDOffset:]),
		gdOffset:         gd,
		stream:           gd == gdAtEnd,
		overHead:         le.Uint64(p[offOverHead:]),
		unclean:          p[offUncleanShutdown] != 0,
		newlines:         string(p[offNewlines:][:len(newlines)]),
		compression:      le.Uint16(p[offCompression:]),
	}, nil
}

// check refuses what can't be read, and fields that contradict each other, the limits or the file
// of fileSize bytes. After it, the sizes below may be used.
func (h *header) check(fileSize int64) error {
	if h.kind != hostedExtent {
		return h.checkESX(fileSize)
	}
	fileSectors := uint64(fileSize) / sectorSize
	packed := h.flags&flagCompressed != 0
	switch unknown := h.flags &^ (flagsIgnorable | flagCompressed | flagMarkers); {
	case h.version < minVersion || h.version > maxVersion:
		return formats.Unsupported(name, offVersion, "version %d (known are %d to %d)", h.version, minVersion, maxVersion)
	case unknown != 0:
		return formats.Unsupported(name, offFlags, "unknown flags %#x", unknown)
	case h.flags&flagNewlines != 0 && h.newlines != newlines:
		return formats.Corrupt(name, offNewlines, "the file was changed by a transfer as text")
	case h.compression > compressionZlib:
		return formats.Unsupported(name, offCompression, "compression algorithm %d", h.compression)
	case packed != (h.compression == compressionZlib):
		return formats.Corrupt(name, offCompression, "compression algorithm %d contradicts the flags %#x", h.compression, h.flags)
	case packed != (h.flags&flagMarkers != 0):
		return formats.Unsupported(name, offFlags, "compressed grains without markers, or markers without compressed grains (flags %#x)", h.flags)
	case h.gtesPerGT == 0 || h.gtesPerGT > maxGTEsPerGT:
		return formats.Corrupt(name, offGTEsPerGT, "grain tables have %d entries, must be 1 to %d", h.gtesPerGT, maxGTEsPerGT)
	}
	if err := h.checkGrains(offGrainSize, offCapacity); err != nil {
		return err
	}
	switch {
	case packed && h.grainSectors > maxPackedSectors:
		return formats.Unsupported(name, offGrainSize, "compressed grains of %d sectors (at most %d)", h.grainSectors, maxPackedSectors)
	case h.overHead > fileSectors:
		return formats.Corrupt(name, offOverHead, "the grains begin at sector %d, past the end of the file", h.overHead)
	}
	return h.checkDescriptor(fileSize)
}

// checkGrains refuses sizes beyond the limits. The fields lie at these offsets; gtesPerGT is good.
func (h *header) checkGrains(grainSize, capacity int64) error {
	switch most := uint64(maxDirectoryBytes / h.entrySize()); {
	case h.grainSectors == 0 || h.grainSectors&(h.grainSectors-1) != 0 || h.grainSectors > maxGrainSectors:
		return formats.Corrupt(name, grainSize, "the grain size is %d sectors, must be a power of two up to %d", h.grainSectors, maxGrainSectors)
	case h.capacity == 0:
		return formats.Corrupt(name, capacity, "the extent has a capacity of 0")
	case h.capacity > maxDiskSectors:
		return formats.Corrupt(name, capacity, "the capacity of %d sectors is beyond 63 bits", h.capacity)
	case h.tables() > most:
		return formats.Corrupt(name, capacity, "the capacity of %d sectors takes %d grain tables, at most %d are allowed", h.capacity, h.tables(), most)
	}
	return nil
}

// checkDescriptor refuses an embedded descriptor that lies outside the file or is too large.
func (h *header) checkDescriptor(fileSize int64) error {
	fileSectors := uint64(fileSize) / sectorSize
	switch {
	case h.descriptorOffset == 0:
		return nil
	case h.descriptorSize > maxDescriptorBytes/sectorSize:
		return formats.Corrupt(name, offDescriptorSize, "the descriptor has %d sectors, at most %d are allowed", h.descriptorSize, maxDescriptorBytes/sectorSize)
	case h.descriptorOffset > fileSectors || h.descriptorSize > fileSectors-h.descriptorOffset:
		return formats.Corrupt(name, offDescriptorOffset, "the descriptor reaches past the end of the file")
	}
	return nil
}

// grainBytes is the size of a grain.
func (h *header) grainBytes() int64 { return int64(h.grainSectors) * sectorSize }

// headerBytes is the size of the header.
func (h *header) headerBytes() int64 {
	if h.kind == cowdExtent {
		return cowdHeaderLen
	}
	return headerLen
}

// directoryField is where in the header the offset of the grain directory lies.
func (h *header) directoryField() int64 {
	switch h.kind {
	case cowdExtent:
		return offCOWDDirectory
	case seSparseExtent:
		return offSEDirectory
	}
	return offGDOffset
}

// entrySize is the size of an entry of the grain directory and of grain tables, in bytes.
func (h *header) entrySize() int64 {
	if h.kind == seSparseExtent {
		return seEntryBytes
	}
	return entryBytes
}

// tableBytes is the size of a grain table. In the file it fills whole sectors.
func (h *header) tableBytes() int64 { return int64(h.gtesPerGT) * h.entrySize() }

// tableSpan is how many bytes of disk a grain table describes.
func (h *header) tableSpan() int64 { return int64(h.gtesPerGT) * h.grainBytes() }

// tables is how many grain tables the capacity takes, and how many entries the grain directory has.
func (h *header) tables() uint64 {
	per := uint64(h.gtesPerGT) * h.grainSectors
	return (h.capacity-1)/per + 1
}

// bytes is the extent's capacity in bytes.
func (h *header) bytes() int64 { return int64(h.capacity) * sectorSize }

// maxStoredBytes is the most a compressed grain may take with its marker. It is what QEMU reads.
func (h *header) maxStoredBytes() int64 { return 2 * h.grainBytes() }

// Markers of stream-optimized extents ("Stream-Optimized Compressed Sparse Extents"). A grain's
// marker is followed by its data at once, another one fills its sector.
const (
	grainMarkerLen = 12
	markerLen      = 16
	footerLen      = 3 * sectorSize // marker, copy of the header, end-of-stream marker
)

// markerType says what follows a marker that is no grain's.
type markerType uint32

const (
	markerEndOfStream markerType = 0
	markerTable       markerType = 1
	markerDirectory   markerType = 2
	markerFooter      markerType = 3
	markerProgress    markerType = 4 // not in the note; VMware's open-vmdk names it
)

// marker is a grain marker if size is not 0.
type marker struct {
	value uint64 // a grain's first sector on the disk, or how many sectors of metadata follow
	size  uint32 // of a grain's compressed data, bytes
	typ   markerType
}

// isGrain says that the marker is a grain's.
func (m marker) isGrain() bool { return m.size > 0 }

// parseMarker reads a marker from the first markerLen bytes of p, or the grain's part of it from
// grainMarkerLen.
func parseMarker(p []byte) marker {
	m := marker{value: binary.LittleEndian.Uint64(p), size: binary.LittleEndian.Uint32(p[8:])}
	if m.size == 0 && len(p) >= markerLen {
		m.typ = markerType(binary.LittleEndian.Uint32(p[grainMarkerLen:]))
	}
	return m
}

// parseFooter reads the last footerLen bytes of a file, which lie at at: the header with the grain
// directory's offset.
func parseFooter(p []byte, at int64) (header, error) {
	m, end := parseMarker(p), parseMarker(p[2*sectorSize:])
	switch {
	case m.size != 0 || m.typ != markerFooter:
		return header{}, formats.Corrupt(name, at, "the footer's marker is missing")
	case end != marker{}:
		return header{}, formats.Corrupt(name, at+2*sectorSize, "the end-of-stream marker is missing")
	}
	f, err := parseHeader(p[sectorSize:], at+sectorSize)
	if err == nil && f.stream {
		err = formats.Corrupt(name, at+sectorSize+offGDOffset, "the footer doesn't say where the grain directory is")
	}
	return f, err
}

// agrees says whether the footer f is of the same extent as h.
func (h header) agrees(f header) bool {
	f.gdOffset, f.rgdOffset, f.stream = h.gdOffset, h.rgdOffset, h.stream
	f.overHead, f.unclean = h.overHead, h.unclean
	f.descriptorOffset, f.descriptorSize = h.descriptorOffset, h.descriptorSize
	return f == h
}
