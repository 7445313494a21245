package zvhd2

import (
	"encoding/binary"

	"imgferry/bitmap"
	"imgferry/formats/hwstream"
)

// All positions, sizes and values below are those of the format's public reference driver. All
// integers are little-endian, and every structure starts at a multiple of page.
const (
	// BlockSize is the unit of compression in bytes. The field may say any power of two from 1 to
	// 32 MiB, but the reference driver addresses blocks as 4096 sectors, so nothing else exists.
	BlockSize = bitmap.BlockSize

	// MaxDiskSize is the largest disk in bytes that is written and read: 32 TiB, the largest disk
	// of the cloud that takes this format. It bounds the parsed index at 128 MiB (8 bytes a stored
	// block; 4 MiB for a full 1 TiB) and the bitmap at 2 MiB.
	MaxDiskSize = 32 << 40

	page       = hwstream.Page
	sectorSize = hwstream.SectorSize
	gib        = 1 << 30

	indexSegmentSize  = 524288 // bytes, index_seg_size
	indexEntrySize    = 16
	entriesPerSegment = indexSegmentSize / indexEntrySize
	bitmapSegmentSize = bitmap.SegmentSize // bytes, bitmap_seg_size

	// maxFileSize is what the parsed index can address with 32 bits of pages: 16 TiB.
	maxFileSize = page << 32
)

// Offsets in the footer structure. The header, the end-of-data footer and the trailer of a file
// are footer structures, padded to a page.
const (
	footerSize = hwstream.FooterSize

	offCookie         = 0 // 8 bytes
	offFeatures       = 8
	offVersion        = 12
	offDataOffset     = 16 // 8 bytes
	offTimestamp      = 24
	offCreatorApp     = 28
	offCreatorVersion = 32
	offCreatorOS      = 36
	offOrigSize       = 40 // 8 bytes
	offCurrSize       = 48 // 8 bytes
	offGeometry       = 56
	offDiskType       = 60
	offChecksum       = hwstream.OffChecksum
	offUUID           = 68 // 16 bytes
	offSaved          = 84 // 1 byte
	offHidden         = 85 // 1 byte
	offAlign64        = 86 // 1 byte
	offZVHD2Version   = 87 // 1 byte
	offBlockSize      = 88
	offMaxBlocks      = 92
	offIndexPos       = 96  // 8 bytes
	offBitmapPos      = 104 // 8 bytes
	offIndexSize      = 112
	offBitmapSize     = 116
	offIndexSegSize   = 120
	offBitmapSegSize  = 124
	offIndexSegs      = 128
	offBitmapSegs     = 132
	offStored         = 136
	offFullIndex      = 140 // 1 byte
	offMethod         = 141 // 1 byte
	offReserved       = 142 // to the end
)

// What the fields that never differ hold.
const (
	cookie         = "z2strm\x00\x00"
	features       = 2
	fileVersion    = 0x00010000
	noDataOffset   = 0xFFFFFFFFFFFFFFFF
	creatorApp     = "tap\x00"
	creatorVersion = 0x00010004
	diskType       = 4
	zvhd2Version   = 1
)

// footer is the footer structure. The cookie, the checksum and the reserved bytes are no fields:
// append writes them, and readFooters checks them.
type footer struct {
	features, version uint32
	dataOffset        uint64
	timestamp         uint32 // seconds since 2000-01-01T00:00:00Z
	creatorApp        [4]byte
	creatorVersion    uint32
	creatorOS         uint32
	origSize          uint64 // bytes, of the disk that was converted
	currSize          uint64 // bytes, origSize rounded up to 1 GiB: what the reference driver shows
	geometry          uint32
	diskType          uint32
	uuid              [16]byte
	saved, hidden     byte
	align64           byte
	zvhd2Version      byte
	blockSize         uint32
	maxBlocks         uint32 // blocks of the disk, stored or not

	// The rest but fullIndex and method is zero in the header and, but for stored, in the
	// end-of-data footer: it isn't known before the end.
	indexPos, bitmapPos         uint64 // file offsets, bytes
	indexSize, bitmapSize       uint32 // bytes
	indexSegSize, bitmapSegSize uint32 // bytes
	indexSegs, bitmapSegs       uint32
	stored                      uint32 // stored blocks
	fullIndex                   byte   // 1: the index has an entry for every block of the disk
	method                      byte   // a Codec's number
}

// newFooter returns the header of a new file. size is a multiple of sectorSize up to MaxDiskSize.
func newFooter(size int64, codec Codec, timestamp uint32) footer {
	return footer{
		features:       features,
		version:        fileVersion,
		dataOffset:     noDataOffset,
		timestamp:      timestamp,
		creatorApp:     [4]byte([]byte(creatorApp)),
		creatorVersion: creatorVersion,
		origSize:       uint64(size),
		currSize:       uint64(hwstream.RoundUp(size, gib)),
		geometry:       hwstream.Geometry(size),
		diskType:       diskType,
		zvhd2Version:   zvhd2Version,
		blockSize:      BlockSize,
		maxBlocks:      uint32(bitmap.Blocks(size)),
		method:         codec.method(),
	}
}

// header returns what the header of the file is whose trailer is f.
func (f footer) header() footer {
	f.indexPos, f.bitmapPos = 0, 0
	f.indexSize, f.bitmapSize, f.indexSegSize, f.bitmapSegSize = 0, 0, 0, 0
	f.indexSegs, f.bitmapSegs, f.stored = 0, 0, 0
	return f
}

// endOfData returns what the end-of-data footer of the file is whose trailer is f: the header with
// the number of stored blocks.
func (f footer) endOfData() footer {
	h := f.header()
	h.stored = f.stored
	return h
}

// trailer returns the trailer of a file with a dense index and header f, whose index is at
// indexPos.
func (f footer) trailer(indexPos, stored int64) footer {
	f.indexSegSize, f.bitmapSegSize = indexSegmentSize, bitmapSegmentSize
	f.indexSegs = uint32(segments(stored, entriesPerSegment))
	f.bitmapSegs = uint32(segments(int64(f.maxBlocks), bitmap.BlocksPerSegment))
	f.indexSize = f.indexSegs * indexSegmentSize
	f.bitmapSize = f.bitmapSegs * bitmapSegmentSize
	f.indexPos = uint64(indexPos)
	f.bitmapPos = f.indexPos + uint64(f.indexSize)
	f.stored = uint32(stored)
	return f
}

// indexEntries returns how many entries of the index are in use.
func (f footer) indexEntries() int64 {
	if f.fullIndex != 0 {
		return int64(f.maxBlocks)
	}
	return int64(f.stored)
}

// parseFooter reads the footer structure at the start of b, which has footerSize bytes.
func parseFooter(b []byte) footer {
	le := binary.LittleEndian
	return footer{
		features:       le.Uint32(b[offFeatures:]),
		version:        le.Uint32(b[offVersion:]),
		dataOffset:     le.Uint64(b[offDataOffset:]),
		timestamp:      le.Uint32(b[offTimestamp:]),
		creatorApp:     [4]byte(b[offCreatorApp:]),
		creatorVersion: le.Uint32(b[offCreatorVersion:]),
		creatorOS:      le.Uint32(b[offCreatorOS:]),
		origSize:       le.Uint64(b[offOrigSize:]),
		currSize:       le.Uint64(b[offCurrSize:]),
		geometry:       le.Uint32(b[offGeometry:]),
		diskType:       le.Uint32(b[offDiskType:]),
		uuid:           [16]byte(b[offUUID:]),
		saved:          b[offSaved],
		hidden:         b[offHidden],
		align64:        b[offAlign64],
		zvhd2Version:   b[offZVHD2Version],
		blockSize:      le.Uint32(b[offBlockSize:]),
		maxBlocks:      le.Uint32(b[offMaxBlocks:]),
		indexPos:       le.Uint64(b[offIndexPos:]),
		bitmapPos:      le.Uint64(b[offBitmapPos:]),
		indexSize:      le.Uint32(b[offIndexSize:]),
		bitmapSize:     le.Uint32(b[offBitmapSize:]),
		indexSegSize:   le.Uint32(b[offIndexSegSize:]),
		bitmapSegSize:  le.Uint32(b[offBitmapSegSize:]),
		indexSegs:      le.Uint32(b[offIndexSegs:]),
		bitmapSegs:     le.Uint32(b[offBitmapSegs:]),
		stored:         le.Uint32(b[offStored:]),
		fullIndex:      b[offFullIndex],
		method:         b[offMethod],
	}
}

// append appends the structure, with its checksum and padded to a page.
func (f footer) append(dst []byte) []byte {
	le := binary.LittleEndian
	start := len(dst)
	dst = append(dst, make([]byte, page)...)
	b := dst[start:]
	copy(b[offCookie:], cookie)
	le.PutUint32(b[offFeatures:], f.features)
	le.PutUint32(b[offVersion:], f.version)
	le.PutUint64(b[offDataOffset:], f.dataOffset)
	le.PutUint32(b[offTimestamp:], f.timestamp)
	copy(b[offCreatorApp:], f.creatorApp[:])
	le.PutUint32(b[offCreatorVersion:], f.creatorVersion)
	le.PutUint32(b[offCreatorOS:], f.creatorOS)
	le.PutUint64(b[offOrigSize:], f.origSize)
	le.PutUint64(b[offCurrSize:], f.currSize)
	le.PutUint32(b[offGeometry:], f.geometry)
	le.PutUint32(b[offDiskType:], f.diskType)
	copy(b[offUUID:], f.uuid[:])
	b[offSaved], b[offHidden], b[offAlign64], b[offZVHD2Version] = f.saved, f.hidden, f.align64, f.zvhd2Version
	le.PutUint32(b[offBlockSize:], f.blockSize)
	le.PutUint32(b[offMaxBlocks:], f.maxBlocks)
	le.PutUint64(b[offIndexPos:], f.indexPos)
	le.PutUint64(b[offBitmapPos:], f.bitmapPos)
	le.PutUint32(b[offIndexSize:], f.indexSize)
	le.PutUint32(b[offBitmapSize:], f.bitmapSize)
	le.PutUint32(b[offIndexSegSize:], f.indexSegSize)
	le.PutUint32(b[offBitmapSegSize:], f.bitmapSegSize)
	le.PutUint32(b[offIndexSegs:], f.indexSegs)
	le.PutUint32(b[offBitmapSegs:], f.bitmapSegs)
	le.PutUint32(b[offStored:], f.stored)
	b[offFullIndex], b[offMethod] = f.fullIndex, f.method
	le.PutUint32(b[offChecksum:], hwstream.Checksum(b))
	return dst
}

// indexEntry is one entry of the index. pos and length are in bytes.
type indexEntry struct {
	pos    uint64
	block  uint32
	length uint32
}

// zero reports whether the entry is that of a block that isn't stored.
func (e indexEntry) zero() bool { return e.pos == 0 || e.length == 0 }

// parseEntry reads the entry at the start of b, which has indexEntrySize bytes.
func parseEntry(b []byte) indexEntry {
	return indexEntry{
		pos:    binary.LittleEndian.Uint64(b),
		block:  binary.LittleEndian.Uint32(b[8:]),
		length: binary.LittleEndian.Uint32(b[12:]),
	}
}

// append appends the entry.
func (e indexEntry) append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, e.pos)
	dst = binary.LittleEndian.AppendUint32(dst, e.block)
	return binary.LittleEndian.AppendUint32(dst, e.length)
}

// segments returns how many segments of per items hold n items.
func segments(n, per int64) int64 { return (n + per - 1) / per }

// TailSize returns how many bytes follow the last chunk of a file with that many stored blocks of a
// disk of that many blocks: end-of-data footer, index, bitmap and trailer.
func TailSize(storedBlocks, blocks int64) int64 {
	return page + segments(storedBlocks, entriesPerSegment)*indexSegmentSize + bitmap.StoredSize(blocks) + page
}
