package zvhd2

import (
	"encoding/binary"

	"imgferry/formats"
)

// A chunk is a stored block: prefix, payload, padding, postfix.
const (
	chunkPrefix  = "hwstream bg\x00"
	chunkPostfix = "end\x00"

	offPayloadSize = 12
	offBlock       = 16
	offChunkZeros  = 20 // to the payload
	chunkHeadSize  = 48

	// ChunkBound is the longest chunk in bytes that Writer.Encode makes, with any codec and level.
	// A block that can't be compressed is stored as raw pieces with 3 bytes of head each per 64 or
	// 128 KiB (zstd) or 5 per 64 KiB (zlib), hundreds of bytes in all: with head and postfix it fits
	// in one page more than the block.
	ChunkBound = BlockSize + page

	// maxChunk is the longest chunk that is read, in bytes. Nothing in the format bounds it, but
	// real encoders stay below BlockSize + 2 pages; it is the size of a read buffer.
	maxChunk = 2 * BlockSize
)

// chunkLen returns the length of a chunk with a payload of size bytes.
func chunkLen(size int64) int64 {
	return roundUp(chunkHeadSize+size+int64(len(chunkPostfix)), page)
}

// appendChunkHead appends the first chunkHeadSize bytes of the chunk of a block.
func appendChunkHead(dst []byte, block, size uint32) []byte {
	dst = append(dst, chunkPrefix...)
	dst = binary.LittleEndian.AppendUint32(dst, size)
	dst = binary.LittleEndian.AppendUint32(dst, block)
	return append(dst, make([]byte, chunkHeadSize-offChunkZeros)...)
}

// parseChunk returns the payload of chunk, the whole chunk of a block at file offset pos. Padding is
// not looked at: the reference writer leaves garbage there.
func parseChunk(chunk []byte, pos int64, block uint32) (payload []byte, err error) {
	if len(chunk) < page {
		return nil, formats.Corrupt(name, pos, "chunk of block %d has %d bytes, less than a page", block, len(chunk))
	}
	size, err := checkFrame(chunk[:chunkHeadSize], chunk[len(chunk)-len(chunkPostfix):], int64(len(chunk)), pos, block)
	if err != nil {
		return nil, err
	}
	return chunk[chunkHeadSize : chunkHeadSize+size], nil
}

// checkFrame checks the head and the postfix of the chunk of a block, length bytes long at file
// offset pos, and returns the size of the payload.
func checkFrame(head, postfix []byte, length, pos int64, block uint32) (size int64, err error) {
	if string(head[:offPayloadSize]) != chunkPrefix {
		return 0, formats.Corrupt(name, pos, "chunk of block %d doesn't begin with %q", block, chunkPrefix)
	}
	size = int64(binary.LittleEndian.Uint32(head[offPayloadSize:]))
	if size == 0 || chunkLen(size) != length {
		return 0, formats.Corrupt(name, pos+offPayloadSize, "payload of %d bytes in the chunk of %d bytes of block %d", size, length, block)
	}
	if n := binary.LittleEndian.Uint32(head[offBlock:]); n != block {
		return 0, formats.Corrupt(name, pos+offBlock, "chunk says block %d where the index says block %d", n, block)
	}
	for i, v := range head[offChunkZeros:] {
		if v != 0 {
			return 0, formats.Corrupt(name, pos+offChunkZeros+int64(i), "chunk head of block %d is not zero where it must be", block)
		}
	}
	if string(postfix) != chunkPostfix {
		return 0, formats.Corrupt(name, pos+length-int64(len(chunkPostfix)), "chunk of block %d doesn't end with %q", block, chunkPostfix)
	}
	return size, nil
}

// decodeChunk decodes chunk, the whole chunk of a block at file offset pos, into dst, which has
// BlockSize bytes.
func decodeChunk(dst, chunk []byte, codec Codec, pos int64, block uint32) error {
	payload, err := parseChunk(chunk, pos, block)
	if err != nil {
		return err
	}
	if err := codec.decode(dst, payload); err != nil {
		return formats.Corrupt(name, pos+chunkHeadSize, "block %d can't be decoded: %v", block, err)
	}
	return nil
}
