// Package hwstream has what the two stream formats of Huawei Cloud, ZVHD and ZVHD2, share: the frame of
// a stored block (a chunk), the index of chunks that a reader keeps, flushed zlib payloads, and the
// footer's common part.
//
// It neither reads nor writes files: that is for packages zvhd and zvhd2, which know what lies where in
// theirs.
package hwstream

import (
	"encoding/binary"
	"fmt"

	"imgferry/bitmap"
	"imgferry/formats"
)

// Sizes that hold for both formats, in bytes.
const (
	// Page is what every structure is padded to.
	Page = 4096
	// SectorSize is what disk sizes are multiples of.
	SectorSize = 512
	// BlockSize is the unit of storage and compression.
	BlockSize = bitmap.BlockSize

	// MaxDiskSize is the largest disk that is written and read: 32 TiB, the largest disk of the cloud
	// that takes these formats. It bounds an Index at 128 MiB (4 MiB for a full 1 TiB).
	MaxDiskSize = 32 << 40
	// MaxFileSize is what an Index can address with 32 bits of pages: 16 TiB.
	MaxFileSize = Page << 32

	// ChunkBound is the longest chunk that is made, with any codec and level. A block that can't be
	// compressed is stored as raw pieces with 3 bytes of head each per 64 or 128 KiB (zstd) or 5 per
	// 64 KiB (zlib), hundreds of bytes in all: with head and postfix it fits in one page more than the
	// block.
	ChunkBound = BlockSize + Page
	// MaxChunk is the longest chunk that is read. Nothing in the formats bounds it, but real encoders
	// stay below BlockSize + 2 pages; it is the size of a read buffer.
	MaxChunk = 2 * BlockSize
)

// A chunk is a stored block: head, payload, padding, postfix. All integers are little-endian.
const (
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

// AppendChunk appends the chunk of a block whose payload compress appends. It refuses one that would be
// longer than ChunkBound with room bytes more. format is the name in errors, here and below.
func AppendChunk(format string, dst []byte, block, room int64, compress func(dst []byte) ([]byte, error)) ([]byte, error) {
	start := len(dst)
	dst, err := compress(AppendHead(dst, uint32(block), 0))
	if err != nil {
		return dst[:start], fmt.Errorf("%s: encoding block %d: %w", format, block, err)
	}
	if size := int64(len(dst) - start - HeadSize); Length(size+room) > ChunkBound {
		return dst[:start], fmt.Errorf("%s: block %d grew to %d bytes in the encoder", format, block, size)
	}
	return Seal(dst, start), nil
}

// Head is what the head of a chunk says.
type Head struct {
	Size  int64 // bytes of payload
	Block uint32
}

// ParseHead reads the head of the chunk at file offset pos, HeadSize bytes.
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

// Decode calls decode with the payload of chunk, the whole chunk of a block at file offset pos. It blames
// the image for an error.
func Decode(format string, chunk []byte, pos int64, block uint32, decode func(payload []byte) error) error {
	payload, err := Payload(format, chunk, pos, block)
	if err != nil {
		return err
	}
	if err := decode(payload); err != nil {
		return formats.Corrupt(format, pos+HeadSize, "block %d can't be decoded: %v", block, err)
	}
	return nil
}
