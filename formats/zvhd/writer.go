package zvhd

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/flate"

	"imgferry/bitmap"
	"imgferry/formats"
	"imgferry/formats/hwstream"
)

// DefaultLevel is the level of the reference writer, as zlib counts.
const DefaultLevel = 6

// Options say what a Writer makes. With the disk's content they decide every byte of the file.
type Options struct {
	// OrigSize is the size of the disk in bytes. It is rounded up to a multiple of 512.
	OrigSize int64
	// Level is how hard the encoder tries, 1 to 9 as zlib counts; 0 is DefaultLevel.
	Level int
}

// Writer writes a ZVHD file front to back. Any number of goroutines may Encode; WriteBlock and Close
// belong to one. Memory is the state of an encoder for each goroutine in Encode.
//
// The format has one zlib stream for all blocks. This writer makes its pieces so that none looks back
// beyond its block's start: that costs next to nothing in size, and lets blocks be encoded at once.
type Writer struct {
	w      io.Writer
	level  int
	blocks int64 // of the disk
	last   int64 // bytes of the disk in the last block
	head   hwstream.Footer
	begun  bool  // the header was written
	next   int64 // the least block that WriteBlock takes
	bytes  int64 // written
	err    error // sticky

	deflaters hwstream.Deflaters
}

var errClosed = errors.New("zvhd: writer is closed")

// NewWriter returns a Writer on w, to which it writes nothing yet. It refuses a disk without bytes,
// and with ErrUnsupported a disk above MaxDiskSize.
func NewWriter(w io.Writer, o Options) (*Writer, error) {
	if o.Level == 0 {
		o.Level = DefaultLevel
	}
	switch {
	case o.OrigSize <= 0:
		return nil, fmt.Errorf("%s: a disk of %d bytes has no valid form", name, o.OrigSize)
	case o.OrigSize > MaxDiskSize:
		return nil, formats.Unsupported(name, -1, "disk of %d bytes: the most is %d", o.OrigSize, int64(MaxDiskSize))
	case o.Level < flate.BestSpeed || o.Level > flate.BestCompression:
		return nil, fmt.Errorf("%s: no level %d: zlib has 1 to 9", name, o.Level)
	}
	size := hwstream.RoundUp(o.OrigSize, hwstream.SectorSize)
	blocks := bitmap.Blocks(size)
	return &Writer{
		w:      w,
		level:  o.Level,
		blocks: blocks,
		last:   size - (blocks-1)*BlockSize,
		head:   hwstream.NewFooter(size, 0),
	}, nil
}

// BlockSize returns the unit of Encode and WriteBlock in bytes.
func (z *Writer) BlockSize() int { return BlockSize }

// MaxEncodedSize returns the most bytes that Encode appends.
func (z *Writer) MaxEncodedSize() int { return ChunkBound }

// Written returns how many bytes of the file were written so far.
func (z *Writer) Written() int64 { return z.bytes }

// Encode appends the chunk of a whole block. It has room for the stream's head, which only the first
// chunk keeps: which one that is shows in WriteBlock. Safe for concurrent use.
func (z *Writer) Encode(dst []byte, index int64, block []byte) ([]byte, error) {
	switch {
	case index < 0 || index >= z.blocks || len(block) != BlockSize:
		return dst, fmt.Errorf("%s: encoding block %d of %d with %d bytes", name, index, z.blocks, len(block))
	case index == z.blocks-1 && !bitmap.IsZero(block[z.last:]):
		return dst, fmt.Errorf("%s: block %d has data behind the end of the disk", name, index)
	}
	return hwstream.AppendChunk(name, dst, index, zlibHeadSize, func(dst []byte) ([]byte, error) { return z.deflaters.Append(dst, block, z.level) })
}

// WriteBlock writes what Encode made of the block. Blocks come in ascending order; those left out are
// zero. The first one is decoded, for the header's UUID and as a proof of the encoder. After an error
// every call returns it.
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
	payload, err := hwstream.Payload(name, encoded, z.bytes, uint32(index))
	if err != nil {
		return err
	}
	if !z.begun {
		encoded = hwstream.AppendHead(make([]byte, 0, ChunkBound), uint32(index), 0)
		encoded = append(append(encoded, hwstream.ZlibHead(z.level)...), payload...)
		encoded = hwstream.Seal(encoded, 0)
		block := make([]byte, BlockSize)
		if err := decodeChunk(block, encoded, nil, true, page, uint32(index)); err != nil {
			return err
		}
		if err := z.begin(sha256.Sum256(block)); err != nil {
			return err
		}
	}
	if z.bytes+int64(len(encoded))+page > hwstream.MaxFileSize {
		return formats.Unsupported(name, -1, "file would be longer than %d bytes", int64(hwstream.MaxFileSize))
	}
	z.next = index + 1
	return z.write(encoded)
}

// begin writes the header of a disk whose first stored block has that SHA-256; all zeros stand for a
// disk without one.
func (z *Writer) begin(first [sha256.Size]byte) error {
	z.head.UUID = hwstream.DeriveUUID("imgferry zvhd v1", int64(z.head.OrigSize), fmt.Sprint("zlib ", z.level), first)
	z.begun = true
	return z.write(appendFooter(nil, z.head))
}

// Close writes the footer. It does not close the writer below. After an error in WriteBlock it writes
// nothing and returns that error; a second Close does nothing and returns an error.
func (z *Writer) Close() error {
	if z.err != nil {
		return z.err
	}
	if !z.begun {
		z.err = z.begin([sha256.Size]byte{})
	}
	if z.err == nil {
		z.err = z.write(appendFooter(nil, z.head))
	}
	if z.err != nil {
		return z.err
	}
	z.err = errClosed
	return nil
}

func (z *Writer) write(p []byte) error {
	n, err := z.w.Write(p)
	z.bytes += int64(n)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return err
}
