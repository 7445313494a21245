package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Limits of bitmaps ("Bitmaps"); QEMU has the same ones.
const (
	bitmapsExtensionLen = 24
	maxBitmaps          = 65535
	maxBitmapDirBytes   = 64 << 20
	maxBitmapName       = 1023
	maxBitmapBytes      = 512 << 20
	minGranularityBits  = 9
	maxGranularityBits  = 31
)

// Offsets in an entry of the bitmap directory ("Bitmap directory").
const (
	bitmapTableOffset  = 0
	bitmapTableEntries = 8
	bitmapFlags        = 12
	bitmapType         = 16
	bitmapGranularity  = 17
	bitmapNameLen      = 18
	bitmapExtraLen     = 20
	bitmapFixedLen     = 24
	bitmapFlagsUnknown = 0xfffffffc
	bitmapTypeDirty    = 1
	bitmapReserved     = 0xff000000000001fe // in an entry of a bitmap table
	bitmapAllOnes      = 1 << 0
)

// bitmapsExtension says where the bitmap directory is ("Bitmaps extension").
type bitmapsExtension struct {
	count     uint32
	dirBytes  uint64
	dirOffset uint64
}

// parseBitmapsExtension decodes the extension. Its offset is not judged yet.
func parseBitmapsExtension(p []byte) (b bitmapsExtension, err error) {
	if len(p) != bitmapsExtensionLen {
		return b, fmt.Errorf("the bitmaps extension has %d bytes, must have %d", len(p), bitmapsExtensionLen)
	}
	be := binary.BigEndian
	b = bitmapsExtension{count: be.Uint32(p), dirBytes: be.Uint64(p[8:]), dirOffset: be.Uint64(p[16:])}
	switch {
	case b.count == 0 || b.count > maxBitmaps:
		err = fmt.Errorf("the bitmaps extension says there are %d bitmaps, must be 1 to %d", b.count, maxBitmaps)
	case be.Uint32(p[4:]) != 0:
		err = errors.New("the bitmaps extension has reserved bits set")
	case b.dirBytes == 0 || b.dirBytes > maxBitmapDirBytes:
		err = fmt.Errorf("the bitmap directory has %d bytes, must have 1 to %d", b.dirBytes, maxBitmapDirBytes)
	}
	return b, err
}

// bitmapTable is where the table of a bitmap lies.
type bitmapTable struct {
	offset  int64 // bytes
	entries int64
}

// parseBitmap decodes the entry of the bitmap directory at the start of p, for a disk of diskSize
// bytes, and returns its length in bytes.
func (h *header) parseBitmap(p []byte) (t bitmapTable, n int, err error) {
	if len(p) < bitmapFixedLen {
		return t, 0, errors.New("the bitmap directory ends within an entry")
	}
	be := binary.BigEndian
	offset, entries, nameLen := be.Uint64(p[bitmapTableOffset:]), be.Uint32(p[bitmapTableEntries:]), be.Uint16(p[bitmapNameLen:])
	if extra := be.Uint32(p[bitmapExtraLen:]); extra != 0 {
		return t, 0, fmt.Errorf("a bitmap has %d bytes of extra data, which nobody knows", extra)
	}
	n = (bitmapFixedLen + int(nameLen) + 7) &^ 7
	if n > len(p) {
		return t, 0, errors.New("the bitmap directory ends within an entry")
	}
	granularity := p[bitmapGranularity]
	bytes := uint64(entries) << h.clusterBits
	switch {
	case entries == 0 || bytes > maxBitmapBytes:
		err = fmt.Errorf("a bitmap's table has %d entries", entries)
	case offset == 0 || offset&uint64(h.clusterSize()-1) != 0 || offset > 1<<56:
		err = fmt.Errorf("the offset %#x of a bitmap's table is not that of a cluster", offset)
	case granularity < minGranularityBits || granularity > maxGranularityBits:
		err = fmt.Errorf("a bitmap's granularity is 2^%d", granularity)
	case be.Uint32(p[bitmapFlags:])&bitmapFlagsUnknown != 0:
		err = errors.New("a bitmap has unknown flags")
	case nameLen > maxBitmapName:
		err = fmt.Errorf("a bitmap's name has %d bytes", nameLen)
	case p[bitmapType] != bitmapTypeDirty:
		err = fmt.Errorf("a bitmap has the unknown type %d", p[bitmapType])
	case h.size > bytes*8<<granularity: // at most 2^63
		err = errors.New("a bitmap is too small for the disk")
	}
	return bitmapTable{offset: int64(offset), entries: int64(entries)}, n, err
}

// parseBitmapEntry decodes an entry of a bitmap table: where a cluster of the bitmap lies, or 0.
func (h *header) parseBitmapEntry(e uint64) (host int64, what string) {
	host = int64(e & entryOffset)
	switch {
	case e&bitmapReserved != 0 || host != 0 && e&bitmapAllOnes != 0:
		what = "has reserved bits set"
	case host&(h.clusterSize()-1) != 0:
		what = "points into the middle of a cluster"
	}
	return host, what
}
