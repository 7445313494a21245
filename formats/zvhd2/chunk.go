package zvhd2

import (
	"imgferry/formats"
	"imgferry/formats/hwstream"
)

const (
	// ChunkBound is the longest chunk in bytes that Writer.Encode makes, with any codec and level.
	// A block that can't be compressed is stored as raw pieces with 3 bytes of head each per 64 or
	// 128 KiB (zstd) or 5 per 64 KiB (zlib), hundreds of bytes in all: with head and postfix it fits
	// in one page more than the block.
	ChunkBound = BlockSize + page

	// maxChunk is the longest chunk that is read, in bytes. Nothing in the format bounds it, but
	// real encoders stay below BlockSize + 2 pages; it is the size of a read buffer.
	maxChunk = 2 * BlockSize
)

// decodeChunk decodes chunk, the whole chunk of a block at file offset pos, into dst, which has
// BlockSize bytes.
func decodeChunk(dst, chunk []byte, codec Codec, pos int64, block uint32) error {
	payload, err := hwstream.Payload(name, chunk, pos, block)
	if err != nil {
		return err
	}
	if err := codec.decode(dst, payload); err != nil {
		return formats.Corrupt(name, pos+hwstream.HeadSize, "block %d can't be decoded: %v", block, err)
	}
	return nil
}
