package vhd

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"imgferry/bitmap"
)

const (
	// blockSize is the unit of Encode, WriteBlock and of allocation in dynamic disks, in bytes. It is
	// the specification's default.
	blockSize = bitmap.BlockSize
	// sectorMapSize is the size of the sector bitmap before each block, in bytes.
	sectorMapSize = blockSize / sectorSize / 8
	// unit is the run of zeros in bytes that isn't written: what a byte of the sector bitmap describes.
	unit = 8 * sectorSize
)

// Subformat is how a disk lies in its file.
type Subformat uint8

// The subformats there are.
const (
	Dynamic Subformat = iota // blocks of zeros are not stored
	Fixed                    // the disk, and the footer behind it
)

// WriterOptions say what a Writer makes. With the disk's content they decide every byte of the file.
type WriterOptions struct {
	// Size is the size of the disk in bytes. It is rounded up, at least to a multiple of 512.
	Size int64
	// Subformat is Dynamic unless said otherwise.
	Subformat Subformat
	// Rounding is Exact unless said otherwise.
	Rounding Rounding
	// Timestamp is the time of creation in seconds since 2000-01-01T00:00:00Z. 0 keeps the clock out
	// of the file.
	Timestamp uint32
}

// Writer writes a VHD file in the order of the disk. Any number of goroutines may Encode; WriteBlock
// and Close belong to one. Memory is 4 bytes for each 2 MiB of a dynamic disk.
type Writer struct {
	o      WriterOptions
	size   int64 // of the disk in the file
	blocks int64 // that can have data
	last   int64 // bytes of the disk in the last one
	target target

	next   int64             // the least block that WriteBlock takes
	first  [sha256.Size]byte // of the first block with data
	stored bool              // there is one
	err    error             // sticky
}

// target is where blocks go. The order of its calls is that of the disk.
type target interface {
	// put writes a block. A bit of sectors, the highest of a byte first, is set for each sector that
	// is not zero.
	put(index int64, sectors, data []byte) error
	// finish writes what else belongs to the file.
	finish(f footer, timestamp uint32) error
}

var errClosed = errors.New("vpc: the writer is closed")

// NewWriter returns a Writer to a new file, to which it writes nothing yet. What it leaves out must
// read as zeros. It refuses disks that are too large for the format.
func NewWriter(to io.WriterAt, o WriterOptions) (*Writer, error) {
	w, err := newWriter(o)
	if err != nil {
		return nil, err
	}
	if o.Subformat == Dynamic {
		w.target = newDynamicFile(to, w.size)
	} else {
		w.target = &fixedFile{to, w.size}
	}
	return w, nil
}

// NewFixedStream is NewWriter for a fixed disk that is written front to back, zeros included: to a
// pipe, say. o.Subformat must be Fixed.
func NewFixedStream(to io.Writer, o WriterOptions) (*Writer, error) {
	if o.Subformat != Fixed {
		return nil, fmt.Errorf("%s: only a fixed disk can be written to a stream, not a dynamic one", name)
	}
	w, err := newWriter(o)
	if err != nil {
		return nil, err
	}
	w.target = &fixedStream{to: to, size: w.size}
	return w, nil
}

func newWriter(o WriterOptions) (*Writer, error) {
	size, err := o.DiskSize()
	if err != nil {
		return nil, err
	}
	blocks := bitmap.Blocks(o.Size)
	return &Writer{o: o, size: size, blocks: blocks, last: o.Size - (blocks-1)*blockSize}, nil
}

// Footer returns the footer of a fixed disk: its file is the disk's bytes, zeros up to o.DiskSize, and
// these 512 bytes. first is the SHA-256 of the first 2 MiB block that has data, padded with zeros; all
// zeros stand for a disk without data.
func Footer(o WriterOptions, first [sha256.Size]byte) ([]byte, error) {
	o.Subformat = Fixed
	size, err := o.DiskSize()
	if err != nil {
		return nil, err
	}
	return o.footer(size, first).append(nil, o.Timestamp), nil
}

// footer makes the footer of a disk of size bytes, which are rounded.
func (o WriterOptions) footer(size int64, first [sha256.Size]byte) footer {
	g := o.Rounding.geometry(size)
	f := footer{
		version:    formatMajorVersion << 16,
		dataOffset: ^uint64(0),
		creator:    o.Rounding.creator(),
		current:    uint64(size),
		cylinders:  g.cylinders,
		heads:      g.heads,
		sectors:    g.sectors,
		diskType:   typeFixed,
	}
	if o.Subformat == Dynamic {
		f.diskType = typeDynamic
		f.dataOffset = headerOffset
	}
	f.id = deriveID(f, first)
	return f
}

// deriveID returns a UUID (RFC 9562, version 8) that depends on the disk and the options alone, so that
// the same disk makes the same file anywhere.
func deriveID(f footer, first [sha256.Size]byte) [16]byte {
	h := sha256.New()
	io.WriteString(h, "imgferry vhd v1")
	h.Write(binary.BigEndian.AppendUint64(nil, f.current))
	io.WriteString(h, f.subformat()+"\x00")
	h.Write(first[:])
	u := [16]byte(h.Sum(nil))
	u[6] = u[6]&0x0f | 0x80 // version 8
	u[8] = u[8]&0x3f | 0x80 // variant
	return u
}

// DiskSize returns the size of the disk in the file, in bytes: Size, rounded. The error says why there
// can be no such file.
func (o WriterOptions) DiskSize() (int64, error) {
	switch {
	case o.Subformat > Fixed:
		return 0, fmt.Errorf("%s: unknown subformat %d", name, uint8(o.Subformat))
	case o.Rounding > MiB:
		return 0, fmt.Errorf("%s: unknown rounding %d", name, uint8(o.Rounding))
	case o.Size <= 0:
		return 0, fmt.Errorf("%s: a disk of %d bytes has no valid form", name, o.Size)
	case o.Size > maxSize:
		return 0, fmt.Errorf("%s: a disk of %d bytes is too large for this format: the most is %d (2040 GiB): choose another format", name, o.Size, int64(maxSize))
	}
	return o.Rounding.round(o.Size), nil
}

// BlockSize returns the unit of Encode and WriteBlock in bytes.
func (w *Writer) BlockSize() int { return blockSize }

// MaxEncodedSize returns the most bytes that Encode appends.
func (w *Writer) MaxEncodedSize() int { return sectorMapSize + blockSize }

// Encode appends the sector bitmap of a block and its bytes. index is its number on the disk. block
// has BlockSize bytes, of which those behind the end of the disk are zeros. Safe for concurrent use.
func (w *Writer) Encode(dst []byte, index int64, block []byte) ([]byte, error) {
	return w.EncodeSparse(dst, index, block, func(from, to int) bool { return bitmap.IsZero(block[from:to]) })
}

// EncodeSparse is Encode, but for sectors for which empty says yes, which must be zeros, instead of those
// that are: they have no bit in the sector bitmap, and holes are made of them. empty gets the bounds of a
// sector in block, in bytes.
func (w *Writer) EncodeSparse(dst []byte, index int64, block []byte, empty func(from, to int) bool) ([]byte, error) {
	switch {
	case index < 0 || index >= w.blocks:
		return dst, fmt.Errorf("%s: encoding block %d of %d", name, index, w.blocks)
	case len(block) != blockSize:
		return dst, fmt.Errorf("%s: encoding block %d of %d bytes", name, index, len(block))
	case index == w.blocks-1 && !bitmap.IsZero(block[w.last:]):
		return dst, fmt.Errorf("%s: block %d has data behind the end of the disk", name, index)
	}
	used := blockSize
	if index == w.blocks-1 {
		used = int(w.last)
	}
	for at := 0; at < blockSize; at += unit {
		var sectors byte
		for bit := range 8 {
			if from := at + bit*sectorSize; from < used && !empty(from, from+sectorSize) {
				sectors |= 0x80 >> bit
			}
		}
		dst = append(dst, sectors)
	}
	return append(dst, block...), nil
}

// WriteBlock writes what Encode made of the block. Blocks come in ascending order; those left out
// are zero. After an error every call returns it.
func (w *Writer) WriteBlock(index int64, encoded []byte) error {
	if w.err == nil {
		w.err = w.writeBlock(index, encoded)
	}
	return w.err
}

func (w *Writer) writeBlock(index int64, encoded []byte) error {
	switch {
	case index < w.next || index >= w.blocks:
		return fmt.Errorf("%s: block %d written where %d to %d may follow", name, index, w.next, w.blocks-1)
	case len(encoded) != sectorMapSize+blockSize:
		return fmt.Errorf("%s: an encoded block of %d bytes", name, len(encoded))
	}
	sectors, data := encoded[:sectorMapSize], encoded[sectorMapSize:]
	if !w.stored {
		w.first, w.stored = sha256.Sum256(data), true
	}
	w.next = index + 1
	return w.target.put(index, sectors, data)
}

// Close writes the tables and the footer. It does not close what is below. After an error in
// WriteBlock it writes nothing and returns that error; a second Close does nothing and returns an
// error.
func (w *Writer) Close() error {
	if w.err != nil {
		return w.err
	}
	if w.err = w.target.finish(w.o.footer(w.size, w.first), w.o.Timestamp); w.err != nil {
		return w.err
	}
	w.err = errClosed
	return nil
}
