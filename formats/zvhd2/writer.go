package zvhd2

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"

	"imgferry/bitmap"
	"imgferry/formats"
	"imgferry/formats/hwstream"
)

// Options say what a Writer makes. With the disk's content they decide every byte of the file.
type Options struct {
	// OrigSize is the size of the disk in bytes. It is rounded up to a multiple of 512.
	OrigSize int64
	// Codec is Zstd unless said otherwise.
	Codec Codec
	Level Level
	// Timestamp is the time of creation in seconds since 2000-01-01T00:00:00Z. 0 keeps the clock
	// out of the file.
	Timestamp uint32
}

// Writer writes a ZVHD2 file front to back. Any number of goroutines may Encode; WriteBlock and
// Close belong to one.
//
// Each Write on the writer below is one whole piece of the file: header, chunk, end-of-data footer,
// index segment, bitmap, trailer. None is longer than ChunkBound. Memory is 8 bytes a stored block
// and the bitmap, and the state of an encoder for each goroutine in Encode.
type Writer struct {
	w      io.Writer
	enc    encoder
	blocks int64 // of the disk
	last   int64 // bytes of the disk in the last block
	head   footer

	bits    *bitmap.Bitmap
	index   hwstream.Index
	next    int64 // the least block that WriteBlock takes
	written int64 // bytes
	err     error // sticky

	padded sync.Pool // *[BlockSize]byte, for blocks that are cut short
}

var errClosed = errors.New("zvhd2: writer is closed")

// NewWriter returns a Writer on w, to which it writes nothing yet. It refuses a disk without bytes,
// and with ErrUnsupported a disk above MaxDiskSize.
func NewWriter(w io.Writer, o Options) (*Writer, error) {
	switch {
	case o.OrigSize <= 0:
		return nil, fmt.Errorf("%s: a disk of %d bytes has no valid form", name, o.OrigSize)
	case o.OrigSize > MaxDiskSize:
		return nil, formats.Unsupported(name, -1, "disk of %d bytes: the most is %d", o.OrigSize, int64(MaxDiskSize))
	case o.Codec > Zlib:
		return nil, fmt.Errorf("%s: unknown %v", name, o.Codec)
	case o.Level > LevelBest:
		return nil, fmt.Errorf("%s: %v has no level %v", name, o.Codec, o.Level)
	}
	size := hwstream.RoundUp(o.OrigSize, sectorSize)
	blocks := bitmap.Blocks(size)
	return &Writer{
		w:      w,
		enc:    encoder{codec: o.Codec, level: o.Level},
		blocks: blocks,
		last:   size - (blocks-1)*BlockSize,
		head:   newFooter(size, o.Codec, o.Timestamp),
		bits:   bitmap.New(blocks),
	}, nil
}

// BlockSize returns the unit of Encode and WriteBlock in bytes.
func (z *Writer) BlockSize() int { return BlockSize }

// MaxEncodedSize returns the most bytes that Encode appends.
func (z *Writer) MaxEncodedSize() int { return ChunkBound }

// Written returns how many bytes of the file were written so far.
func (z *Writer) Written() int64 { return z.written }

// Encode appends the chunk of a block: its head, payload, padding and postfix. index is the block's
// number on the disk. The disk's last block may be shorter than BlockSize and is padded with zeros;
// it must not hold data behind the end of the disk. Safe for concurrent use.
func (z *Writer) Encode(dst []byte, index int64, block []byte) ([]byte, error) {
	switch {
	case index < 0 || index >= z.blocks:
		return dst, fmt.Errorf("%s: encoding block %d of %d", name, index, z.blocks)
	case len(block) > BlockSize || len(block) < BlockSize && index < z.blocks-1:
		return dst, fmt.Errorf("%s: encoding block %d of %d bytes", name, index, len(block))
	case index == z.blocks-1 && int64(len(block)) > z.last && !bitmap.IsZero(block[z.last:]):
		return dst, fmt.Errorf("%s: block %d has data behind the end of the disk", name, index)
	}
	if len(block) < BlockSize {
		buf, ok := z.padded.Get().(*[BlockSize]byte)
		if !ok {
			buf = new([BlockSize]byte)
		}
		defer z.padded.Put(buf)
		clear(buf[copy(buf[:], block):])
		block = buf[:]
	}
	return hwstream.AppendChunk(name, dst, index, 0, func(dst []byte) ([]byte, error) { return z.enc.append(dst, block) })
}

// WriteBlock writes what Encode made of the block. Blocks come in ascending order; those left out
// are zero. The first one is decoded, for the header's UUID and as a proof of the encoder. After an
// error every call returns it.
func (z *Writer) WriteBlock(index int64, encoded []byte) error {
	if z.err == nil {
		z.err = z.writeBlock(index, encoded)
	}
	return z.err
}

func (z *Writer) writeBlock(index int64, encoded []byte) error {
	if index < z.next || index >= z.blocks {
		return fmt.Errorf("%s: block %d written where %d to %d may follow", name, index, z.next, z.blocks-1)
	}
	if _, err := hwstream.Payload(name, encoded, z.written, uint32(index)); err != nil {
		return err
	}
	if len(z.index) == 0 {
		block := make([]byte, BlockSize)
		if err := decodeChunk(block, encoded, z.enc.codec, page, uint32(index)); err != nil {
			return err
		}
		if err := z.writeHeader(sha256.Sum256(block)); err != nil {
			return err
		}
	}
	if z.written+int64(len(encoded))+TailSize(int64(len(z.index))+1, z.blocks) > hwstream.MaxFileSize {
		return formats.Unsupported(name, -1, "file would be longer than %d bytes", int64(hwstream.MaxFileSize))
	}
	z.index = append(z.index, hwstream.Ref{Block: uint32(index), Page: uint32(z.written / page)})
	z.bits.Set(index)
	z.next = index + 1
	return z.write(encoded)
}

// writeHeader writes the header of a disk whose first stored block has that SHA-256; all zeros
// stand for a disk without one.
func (z *Writer) writeHeader(first [sha256.Size]byte) error {
	z.head.UUID = hwstream.DeriveUUID("imgferry zvhd2 v1", int64(z.head.OrigSize), z.enc.name(), first)
	return z.write(z.head.append(nil))
}

// Close writes what follows the last chunk: end-of-data footer, index, bitmap and trailer. It does
// not close the writer below. After an error in WriteBlock it writes nothing and returns that
// error; a second Close does nothing and returns an error.
func (z *Writer) Close() error {
	if z.err != nil {
		return z.err
	}
	if z.err = z.writeTail(); z.err != nil {
		return z.err
	}
	z.err = errClosed
	return nil
}

func (z *Writer) writeTail() error {
	if len(z.index) == 0 {
		if err := z.writeHeader([sha256.Size]byte{}); err != nil {
			return err
		}
	}
	stored := int64(len(z.index))
	t := z.head.trailer(z.written+page, stored)
	index := append(z.index, hwstream.Ref{Page: uint32(z.written / page)})
	if err := z.write(t.endOfData().append(nil)); err != nil {
		return err
	}
	for from := int64(0); from < stored; from += entriesPerSegment {
		seg := make([]byte, 0, indexSegmentSize)
		for i := from; i < min(from+entriesPerSegment, stored); i++ {
			c := index[i]
			seg = indexEntry{pos: uint64(c.Pos()), block: c.Block, length: uint32(index.Length(int(i)))}.append(seg)
		}
		if err := z.write(seg[:indexSegmentSize]); err != nil {
			return err
		}
	}
	if err := z.write(z.bits.Append(nil)); err != nil {
		return err
	}
	return z.write(t.append(nil))
}

func (z *Writer) write(p []byte) error {
	n, err := z.w.Write(p)
	z.written += int64(n)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return err
}
