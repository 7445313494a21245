package zvhd

import (
	"encoding/binary"

	"imgferry/bitmap"
	"imgferry/formats"
	"imgferry/formats/hwstream"
)

// A file is a header, chunks in ascending order of their blocks, and a footer that is a copy of the
// header. Each starts at a multiple of page. All integers are little-endian.
const (
	// BlockSize is the unit of storage in bytes; nothing in the file says it.
	BlockSize = bitmap.BlockSize

	// MaxDiskSize is the largest disk in bytes that is written and read: 32 TiB, as for ZVHD2. It
	// bounds the index at 128 MiB (8 bytes a stored block).
	MaxDiskSize = 32 << 40

	page = hwstream.Page
	gib  = 1 << 30

	// ChunkBound is the longest chunk in bytes that Writer makes: a block that can't be compressed has
	// 5 bytes more per 64 KiB, hundreds of bytes in all, and fits in one page more than the block.
	ChunkBound = BlockSize + page

	// maxChunk is the longest chunk that is read, in bytes. It is the size of a read buffer.
	maxChunk = 2 * BlockSize

	// maxFileSize is what the index can address with 32 bits of pages: 16 TiB.
	maxFileSize = page << 32
)

// Offsets in the footer structure; what lies behind align_64 is reserved and zero. They are those of
// ZVHD2, whose structure goes on.
const (
	offCookie         = 0 // 8 bytes
	offFeatures       = 8
	offVersion        = 12
	offDataOffset     = 16 // 8 bytes
	offTimestamp      = 24
	offCreatorApp     = 28
	offCreatorVersion = 32
	offOrigSize       = 40 // 8 bytes
	offCurrSize       = 48 // 8 bytes
	offGeometry       = 56
	offDiskType       = 60
	offUUID           = 68 // 16 bytes
	offReserved       = 87 // to the end
)

// What the fields that never differ hold.
const (
	cookie         = "stream\x00\x00"
	features       = 2
	fileVersion    = 0x00010000
	noDataOffset   = 0xFFFFFFFFFFFFFFFF
	creatorApp     = "tap\x00"
	creatorVersion = 0x00010004
	diskType       = 4
)

// footer is what the header and the footer of a file say.
type footer struct {
	timestamp          uint32 // seconds since 2000-01-01T00:00:00Z
	origSize, currSize uint64 // bytes; currSize is origSize rounded up to 1 GiB
	uuid               [16]byte
}

// append appends the structure, with its checksum and padded to a page.
func (f footer) append(dst []byte) []byte {
	le := binary.LittleEndian
	start := len(dst)
	dst = append(dst, make([]byte, page)...)
	b := dst[start:]
	copy(b[offCookie:], cookie)
	le.PutUint32(b[offFeatures:], features)
	le.PutUint32(b[offVersion:], fileVersion)
	le.PutUint64(b[offDataOffset:], noDataOffset)
	le.PutUint32(b[offTimestamp:], f.timestamp)
	copy(b[offCreatorApp:], creatorApp)
	le.PutUint32(b[offCreatorVersion:], creatorVersion)
	le.PutUint64(b[offOrigSize:], f.origSize)
	le.PutUint64(b[offCurrSize:], f.currSize)
	le.PutUint32(b[offGeometry:], hwstream.Geometry(int64(f.origSize)))
	le.PutUint32(b[offDiskType:], diskType)
	copy(b[offUUID:], f.uuid[:])
	le.PutUint32(b[hwstream.OffChecksum:], hwstream.Checksum(b))
	return dst
}

// parseFooter reads the footer structure at the start of b, which has hwstream.FooterSize bytes.
func parseFooter(b []byte) footer {
	le := binary.LittleEndian
	return footer{
		timestamp: le.Uint32(b[offTimestamp:]),
		origSize:  le.Uint64(b[offOrigSize:]),
		currSize:  le.Uint64(b[offCurrSize:]),
		uuid:      [16]byte(b[offUUID:]),
	}
}

// checkFooter checks the bytes of a header: cookie, checksum, sizes, and what must be zero.
func checkFooter(b []byte) (footer, error) {
	if string(b[:len(cookie)]) != cookie {
		return footer{}, formats.Corrupt(name, 0, "no header where it must be")
	}
	if err := hwstream.CheckChecksum(name, b, 0, "header"); err != nil {
		return footer{}, err
	}
	f := parseFooter(b)
	if f.origSize > MaxDiskSize {
		return f, formats.Unsupported(name, offOrigSize, "disk of %d bytes: the most is %d", f.origSize, int64(MaxDiskSize))
	}
	size := int64(f.origSize)
	if size == 0 || size%hwstream.SectorSize != 0 {
		return f, formats.Corrupt(name, offOrigSize, "disk size of %d bytes is no positive multiple of %d", size, hwstream.SectorSize)
	}
	if want := hwstream.RoundUp(size, gib); int64(f.currSize) != want {
		return f, formats.Corrupt(name, offCurrSize, "size rounded up to 1 GiB is %d, not %d", f.currSize, want)
	}
	for i, v := range b[offReserved:hwstream.FooterSize] {
		if v != 0 {
			return f, formats.Corrupt(name, offReserved+int64(i), "the header is not zero where it must be")
		}
	}
	return f, nil
}
