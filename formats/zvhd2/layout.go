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
	BlockSize = hwstream.BlockSize

	// MaxDiskSize is the largest disk in bytes that is written and read: 32 TiB. It bounds the bitmap at
	// 2 MiB, and the index at what hwstream.MaxDiskSize says.
	MaxDiskSize = hwstream.MaxDiskSize
	// ChunkBound is the longest chunk in bytes that Writer.Encode makes, with any codec and level.
	ChunkBound = hwstream.ChunkBound

	page       = hwstream.Page
	sectorSize = hwstream.SectorSize

	indexSegmentSize  = 524288 // bytes, index_seg_size
	indexEntrySize    = 16
	entriesPerSegment = indexSegmentSize / indexEntrySize
	bitmapSegmentSize = bitmap.SegmentSize // bytes, bitmap_seg_size
)

// Offsets in the footer structure, behind what hwstream.Footer has. The header, the end-of-data footer
// and the trailer of a file are footer structures, padded to a page.
const (
	footerSize = hwstream.FooterSize

	offSaved         = hwstream.OffSaved // 1 byte
	offHidden        = 85                // 1 byte
	offAlign64       = 86                // 1 byte
	offZVHD2Version  = 87                // 1 byte
	offBlockSize     = 88
	offMaxBlocks     = 92
	offIndexPos      = 96  // 8 bytes
	offBitmapPos     = 104 // 8 bytes
	offIndexSize     = 112
	offBitmapSize    = 116
	offIndexSegSize  = 120
	offBitmapSegSize = 124
	offIndexSegs     = 128
	offBitmapSegs    = 132
	offStored        = 136
	offFullIndex     = 140 // 1 byte
	offMethod        = 141 // 1 byte
	offReserved      = 142 // to the end
)

// What fields that never differ hold.
const (
	cookie       = "z2strm\x00\x00"
	zvhd2Version = 1
)

// footer is the footer structure. The cookie, the checksum and the reserved bytes are no fields:
// append writes them, and readFooters checks them.
type footer struct {
	hwstream.Footer
	saved, hidden byte
	align64       byte
	zvhd2Version  byte
	blockSize     uint32
	maxBlocks     uint32 // blocks of the disk, stored or not

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
		Footer:       hwstream.NewFooter(size, timestamp),
		zvhd2Version: zvhd2Version,
		blockSize:    BlockSize,
		maxBlocks:    uint32(bitmap.Blocks(size)),
		method:       codec.method(),
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
		Footer:        hwstream.ParseFooter(b),
		saved:         b[offSaved],
		hidden:        b[offHidden],
		align64:       b[offAlign64],
		zvhd2Version:  b[offZVHD2Version],
		blockSize:     le.Uint32(b[offBlockSize:]),
		maxBlocks:     le.Uint32(b[offMaxBlocks:]),
		indexPos:      le.Uint64(b[offIndexPos:]),
		bitmapPos:     le.Uint64(b[offBitmapPos:]),
		indexSize:     le.Uint32(b[offIndexSize:]),
		bitmapSize:    le.Uint32(b[offBitmapSize:]),
		indexSegSize:  le.Uint32(b[offIndexSegSize:]),
		bitmapSegSize: le.Uint32(b[offBitmapSegSize:]),
		indexSegs:     le.Uint32(b[offIndexSegs:]),
		bitmapSegs:    le.Uint32(b[offBitmapSegs:]),
		stored:        le.Uint32(b[offStored:]),
		fullIndex:     b[offFullIndex],
		method:        b[offMethod],
	}
}

// append appends the structure, with its checksum and padded to a page.
func (f footer) append(dst []byte) []byte {
	return f.Append(dst, cookie, f.put)
}

// put fills in the fields from saved on.
func (f footer) put(b []byte) {
	le := binary.LittleEndian
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
