// Package bitmap keeps one bit for each 2 MiB block of a disk: set if the block holds data. It has
// the zero test for bytes, and the segments in which ZVHD2 files and .mf files store the bits.
//
// It does not decide which blocks hold data (package convert does), and reads no files.
package bitmap

import (
	"errors"
	"fmt"
	"math/bits"
)

const (
	// BlockSize is the unit of the whole program, in bytes: ZVHD2's block and one bit here.
	BlockSize = 2 << 20
	// SegmentSize is the length of one stored segment in bytes (ZVHD2 bitmap_seg_size).
	SegmentSize = 4096
	// BlocksPerSegment is how many blocks one segment covers: 64 GiB of disk.
	BlocksPerSegment = SegmentSize * 8
)

// ErrFormat is wrapped by what Parse returns for bytes that are no bitmap of the disk.
var ErrFormat = errors.New("not a block bitmap of this disk")

// Blocks returns how many blocks a disk of size bytes has, the last one possibly partial.
func Blocks(size int64) int64 {
	if size <= 0 {
		return 0
	}
	return (size-1)/BlockSize + 1
}

// Bitmap is one bit per block. The zero value has no blocks. It is not safe for concurrent writes.
type Bitmap struct {
	bits   []byte
	blocks int64
}

// New returns a bitmap of n blocks, none of them set.
func New(n int64) *Bitmap {
	return &Bitmap{bits: make([]byte, (n+7)/8), blocks: n}
}

// Len returns the number of blocks.
func (b *Bitmap) Len() int64 { return b.blocks }

// Set marks block i as holding data. It panics if i is not below Len.
func (b *Bitmap) Set(i int64) {
	b.check(i)
	b.bits[i/8] |= 1 << (i % 8)
}

// Get reports whether block i holds data. It panics if i is not below Len.
func (b *Bitmap) Get(i int64) bool {
	b.check(i)
	return b.bits[i/8]&(1<<(i%8)) != 0
}

func (b *Bitmap) check(i int64) {
	if i < 0 || i >= b.blocks {
		panic(fmt.Sprintf("bitmap: block %d of %d", i, b.blocks))
	}
}

// Count returns how many blocks are set.
func (b *Bitmap) Count() int64 {
	var n int64
	for _, v := range b.bits {
		n += int64(bits.OnesCount8(v))
	}
	return n
}

// StoredSize returns the length in bytes of the segments for n blocks.
func StoredSize(n int64) int64 {
	return (n + BlocksPerSegment - 1) / BlocksPerSegment * SegmentSize
}

// Append appends the stored form: whole segments of 4096 bytes, block b in bit b%8 (least
// significant first) of byte b/8, the rest zero. It is the bitmap of a ZVHD2 file and the content
// of a .mf file.
func (b *Bitmap) Append(dst []byte) []byte {
	dst = append(dst, b.bits...)
	return append(dst, make([]byte, StoredSize(b.blocks)-int64(len(b.bits)))...)
}

// Parse reads the stored form of a bitmap of n blocks. It refuses another length than the one
// Append makes, and set bits beyond block n; the error wraps ErrFormat. p is not kept.
func Parse(p []byte, n int64) (*Bitmap, error) {
	if int64(len(p)) != StoredSize(n) {
		return nil, fmt.Errorf("%w: it has %d bytes, %d blocks of 2 MiB need %d", ErrFormat, len(p), n, StoredSize(n))
	}
	used := (n + 7) / 8
	b := &Bitmap{bits: append([]byte(nil), p[:used]...), blocks: n}
	if r := n % 8; r != 0 && b.bits[used-1]>>r != 0 {
		return nil, fmt.Errorf("%w: byte %d has bits beyond the last block %d", ErrFormat, used-1, n-1)
	}
	for i := used; i < int64(len(p)); i++ {
		if p[i] != 0 {
			return nil, fmt.Errorf("%w: byte %d, beyond the last block %d, is not zero", ErrFormat, i, n-1)
		}
	}
	return b, nil
}
