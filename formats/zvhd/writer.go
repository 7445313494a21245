package zvhd

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

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
	head   footer
	begun  bool  // the header was written
	next   int64 // the least block that WriteBlock takes
	bytes  int64 // written
	err    error // sticky

	deflaters sync.Pool // *deflater
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
		head:   footer{origSize: uint64(size), currSize: uint64(hwstream.RoundUp(size, gib))},
	}, nil
}

// BlockSize returns the unit of Encode and WriteBlock in bytes.
func (z *Writer) BlockSize() int { return BlockSize }

// MaxEncodedSize returns the most bytes that Encode appends.
func (z *Writer) MaxEncodedSize() int { return ChunkBound }

// Written returns how many bytes of the file were written so far.
func (z *Writer) Written() int64 { return z.bytes }

// zlibHead returns the head of a zlib stream, which tells the level (RFC 1950, 2.2).
func (z *Writer) zlibHead() string {
	switch {
	case z.level == 1:
		return "\x78\x01"
	case z.level < 6:
		return "\x78\x5e"
	case z.level == 6:
		return "\x78\x9c"
	}
	return "\x78\xda"
}

// Encode appends the chunk of a whole block. It has room for the stream's head, which only the first
// chunk keeps: which one that is shows in WriteBlock. Safe for concurrent use.
func (z *Writer) Encode(dst []byte, index int64, block []byte) ([]byte, error) {
	switch {
	case index < 0 || index >= z.blocks || len(block) != BlockSize:
		return dst, fmt.Errorf("%s: encoding block %d of %d with %d bytes", name, index, z.blocks, len(block))
	case index == z.blocks-1 && !bitmap.IsZero(block[z.last:]):
		return dst, fmt.Errorf("%s: block %d has data behind the end of the disk", name, index)
	}
	start := len(dst)
	dst = hwstream.AppendHead(dst, uint32(index), 0)
	dst, err := z.deflate(dst, block)
	if err != nil {
		return dst[:start], fmt.Errorf("%s: encoding block %d: %w", name, index, err)
	}
	if size := int64(len(dst) - start - hwstream.HeadSize); hwstream.Length(size+zlibHeadSize) > ChunkBound {
		return dst[:start], fmt.Errorf("%s: block %d grew to %d bytes in the encoder", name, index, size)
	}
	return hwstream.Seal(dst, start), nil
}

// deflater is a flate writer and where it writes to.
type deflater struct {
	out []byte
	w   *flate.Writer
}

// Write appends p to the output.
func (d *deflater) Write(p []byte) (int, error) {
	d.out = append(d.out, p...)
	return len(p), nil
}

// deflate appends block compressed and flushed.
func (z *Writer) deflate(dst, block []byte) ([]byte, error) {
	d, ok := z.deflaters.Get().(*deflater)
	if !ok {
		d = new(deflater)
		var err error
		if d.w, err = flate.NewWriter(d, z.level); err != nil {
			return nil, err
		}
	}
	defer z.deflaters.Put(d)
	d.out = dst
	d.w.Reset(d)
	_, err := d.w.Write(block)
	if err == nil {
		err = d.w.Flush() // never closed: the stream goes on
	}
	dst, d.out = d.out, nil
	return dst, err
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
		encoded = append(append(encoded, z.zlibHead()...), payload...)
		encoded = hwstream.Seal(encoded, 0)
		block := make([]byte, BlockSize)
		if err := decodeChunk(block, encoded, nil, true, page, uint32(index)); err != nil {
			return err
		}
		if err := z.begin(sha256.Sum256(block)); err != nil {
			return err
		}
	}
	if z.bytes+int64(len(encoded))+page > maxFileSize {
		return formats.Unsupported(name, -1, "file would be longer than %d bytes", int64(maxFileSize))
	}
	z.next = index + 1
	return z.write(encoded)
}

// begin writes the header of a disk whose first stored block has that SHA-256; all zeros stand for a
// disk without one.
func (z *Writer) begin(first [sha256.Size]byte) error {
	h := sha256.New()
	io.WriteString(h, "imgferry zvhd v1")
	h.Write(binary.BigEndian.AppendUint64(nil, z.head.origSize))
	fmt.Fprintf(h, "zlib %d\x00", z.level)
	h.Write(first[:])
	u := [16]byte(h.Sum(nil)) // RFC 9562, version 8
	u[6], u[8] = u[6]&0x0f|0x80, u[8]&0x3f|0x80
	z.head.uuid = u
	z.begun = true
	return z.write(z.head.append(nil))
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
		z.err = z.write(z.head.append(nil))
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
