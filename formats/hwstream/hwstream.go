// Package hwstream has what the two stream formats of Huawei Cloud, ZVHD and ZVHD2, share: the frame of
// a stored block (a chunk), and the checksum and geometry of their footers.
//
// It compresses nothing and reads no files: that is for packages zvhd and zvhd2, whose payloads and
// footers differ.
package hwstream

import (
	"encoding/binary"

	"imgferry/formats"
)

// A chunk is a stored block: head, payload, padding, postfix. All integers are little-endian.
const (
	// Page is what every structure is padded to, in bytes.
	Page = 4096
	// SectorSize is what disk sizes are multiples of, in bytes.
	SectorSize = 512

	prefix = "hwstream bg\x00"
	// Postfix ends a chunk.
	Postfix = "end\x00"

	// OffPayloadSize is where a chunk's head has the size of its payload.
	OffPayloadSize = 12
	offBlock       = 16
	offZeros       = 20 // to the payload
	// HeadSize is the length of a chunk's head in bytes.
	HeadSize = 48
)

// zeros is padding.
var zeros [Page]byte

// RoundUp returns n rounded up to a multiple of unit.
func RoundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }

// Length returns the length in bytes of a chunk with a payload of size bytes.
func Length(size int64) int64 { return RoundUp(HeadSize+size+int64(len(Postfix)), Page) }

// AppendHead appends the first HeadSize bytes of the chunk of a block.
func AppendHead(dst []byte, block, size uint32) []byte {
	dst = append(dst, prefix...)
	dst = binary.LittleEndian.AppendUint32(dst, size)
	dst = binary.LittleEndian.AppendUint32(dst, block)
	return append(dst, zeros[:HeadSize-offZeros]...)
}

// Seal makes a chunk of dst[start:], a head with its payload behind it: it fills in the payload's size
// and appends padding and postfix.
func Seal(dst []byte, start int) []byte {
	size := int64(len(dst) - start - HeadSize)
	binary.LittleEndian.PutUint32(dst[start+OffPayloadSize:], uint32(size))
	dst = append(dst, zeros[:Length(size)-HeadSize-size-int64(len(Postfix))]...)
	return append(dst, Postfix...)
}

// Head is what the head of a chunk says.
type Head struct {
	Size  int64 // bytes of payload
	Block uint32
}

// ParseHead reads the head of the chunk at file offset pos, HeadSize bytes. format is the name in
// errors, here and below.
func ParseHead(format string, head []byte, pos int64) (Head, error) {
	if string(head[:OffPayloadSize]) != prefix {
		return Head{}, formats.Corrupt(format, pos, "no chunk begins with %q where one must be", prefix)
	}
	h := Head{int64(binary.LittleEndian.Uint32(head[OffPayloadSize:])), binary.LittleEndian.Uint32(head[offBlock:])}
	for i, v := range head[offZeros:HeadSize] {
		if v != 0 {
			return h, formats.Corrupt(format, pos+offZeros+int64(i), "chunk head of block %d is not zero where it must be", h.Block)
		}
	}
	if h.Size == 0 {
		return h, formats.Corrupt(format, pos+OffPayloadSize, "chunk of block %d has no payload", h.Block)
	}
	return h, nil
}

// CheckFrame checks the head and the postfix of the chunk of a block, length bytes long at file offset
// pos, and returns the size of the payload in bytes.
func CheckFrame(format string, head, postfix []byte, length, pos int64, block uint32) (size int64, err error) {
	h, err := ParseHead(format, head, pos)
	switch {
	case err != nil:
		return 0, err
	case Length(h.Size) != length:
		return 0, formats.Corrupt(format, pos+OffPayloadSize, "payload of %d bytes in the chunk of %d bytes of block %d", h.Size, length, block)
	case h.Block != block:
		return 0, formats.Corrupt(format, pos+offBlock, "chunk says block %d where the index says block %d", h.Block, block)
	case string(postfix) != Postfix:
		return 0, formats.Corrupt(format, pos+length-int64(len(Postfix)), "chunk of block %d doesn't end with %q", block, Postfix)
	}
	return h.Size, nil
}

// Payload returns the payload of chunk, the whole chunk of a block at file offset pos. Padding is not
// looked at: the reference writer leaves garbage there.
func Payload(format string, chunk []byte, pos int64, block uint32) ([]byte, error) {
	if len(chunk) < Page {
		return nil, formats.Corrupt(format, pos, "chunk of block %d has %d bytes, less than a page", block, len(chunk))
	}
	size, err := CheckFrame(format, chunk[:HeadSize], chunk[len(chunk)-len(Postfix):], int64(len(chunk)), pos, block)
	if err != nil {
		return nil, err
	}
	return chunk[HeadSize : HeadSize+size], nil
}

// Places in a footer structure.
const (
	// FooterSize is the checksummed part of a footer in bytes; what follows it in its page may be
	// garbage.
	FooterSize = 512
	// OffChecksum is where the checksum is, 4 bytes.
	OffChecksum = 64
)

// Checksum returns the one's complement of the sum of a footer's bytes, its own four bytes left out.
func Checksum(b []byte) uint32 {
	var sum uint32
	for i, v := range b[:FooterSize] {
		if i < OffChecksum || i >= OffChecksum+4 {
			sum += uint32(v)
		}
	}
	return ^sum
}

// CheckChecksum checks the checksum of the footer b at file offset pos, which what names.
func CheckChecksum(format string, b []byte, pos int64, what string) error {
	if stored, sum := binary.LittleEndian.Uint32(b[OffChecksum:]), Checksum(b); stored != sum {
		return formats.Corrupt(format, pos+OffChecksum, "%s has checksum %#08x, its bytes give %#08x", what, stored, sum)
	}
	return nil
}

// Geometry returns the cylinders, heads and sectors of a disk of size bytes as c<<16 | h<<8 | s, by
// the algorithm in the appendix of the VHD specification. It is for show: disks above 127 GiB
// don't fit in it.
func Geometry(size int64) uint32 {
	sectors := min(size/SectorSize, 65535*16*255)
	var perTrack, heads, tracks int64
	if sectors >= 65535*16*63 {
		perTrack, heads = 255, 16
		tracks = sectors / perTrack
	} else {
		perTrack = 17
		tracks = sectors / perTrack
		heads = max((tracks+1023)/1024, 4)
		if tracks >= heads*1024 || heads > 16 {
			perTrack, heads = 31, 16
			tracks = sectors / perTrack
		}
		if tracks >= heads*1024 {
			perTrack, heads = 63, 16
			tracks = sectors / perTrack
		}
	}
	return uint32(tracks/heads<<16 | heads<<8 | perTrack)
}
