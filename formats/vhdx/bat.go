package vhdx

import (
	"fmt"
	"math"
	"math/bits"

	"imgferry/formats/mapped"
)

// blocks is how many payload blocks the disk has.
func (d *disk) blocks() int64 {
	return (int64(d.size) + int64(d.blockSize) - 1) / int64(d.blockSize)
}

// chunkBits is the base-two logarithm of how many payload blocks share a sector bitmap block, which
// describes 2^23 logical sectors (2.4).
func (d *disk) chunkBits() int {
	return 23 + bits.TrailingZeros32(d.logicalSector) - bits.TrailingZeros32(d.blockSize)
}

// entry is where in the BAT payload block i is: after each chunk's entries comes one for its sector
// bitmap (2.5).
func (d *disk) entry(i int64) int64 { return i + i>>d.chunkBits() }

// bitmapIndex is where in the BAT the sector bitmap is that says which sectors of payload block i are
// stored.
func (d *disk) bitmapIndex(i int64) int64 {
	chunk := i >> d.chunkBits()
	return (chunk+1)<<d.chunkBits() + chunk
}

// entries is how many entries the BAT has. In a differencing disk it ends with a whole chunk.
func (d *disk) entries() int64 {
	if d.hasParent {
		chunks := (d.blocks()-1)>>d.chunkBits() + 1
		return chunks<<d.chunkBits() + chunks
	}
	return d.entry(d.blocks()-1) + 1
}

// States of BAT entries (2.5.1).
const (
	stateMask        = 7
	stateNotPresent  = 0
	stateUndefined   = 1
	stateZero        = 2
	stateUnmapped    = 3
	stateUnmappedOld = 5 // of drafts of the format, which wrote files too
	statePresent     = 6
	statePartial     = 7
	offsetShift      = 20  // bits 20 to 63 are the offset in MiB
	bitmapBlockBytes = mib // a sector bitmap block (2.4)
)

// block is how a payload block is stored.
type block struct {
	kind mapped.Kind
	// partial says that the sector bitmap tells which of its sectors are stored; the others are as in
	// the parent.
	partial bool
	host    int64 // where it lies in the file, for Data
}

// parseEntry decodes the BAT entry of a payload block. what names the fault if there is one. A block that
// is not present is the parent's in a differencing disk, and as for QEMU zeros in others. What is
// undefined or was unmapped may read as anything, and is zeros.
func (d *disk) parseEntry(e uint64) (b block, what string) {
	switch e & stateMask {
	case stateNotPresent:
		if d.hasParent {
			return block{kind: mapped.Hole}, ""
		}
		return block{kind: mapped.Zero}, ""
	case stateUndefined, stateZero, stateUnmapped, stateUnmappedOld:
		return block{kind: mapped.Zero}, ""
	case statePresent:
		return block{kind: mapped.Data, host: entryOffset(e)}, ""
	case statePartial:
		if !d.hasParent {
			what = "is partially present, which only differencing disks have"
		}
		return block{mapped.Data, true, entryOffset(e)}, what
	}
	return block{kind: mapped.Zero}, fmt.Sprintf("has the unknown state %d", e&stateMask)
}

// entryOffset is the offset in a BAT entry, in bytes, as far as 63 bits go: no file reaches there.
func entryOffset(e uint64) int64 {
	return int64(min(e>>offsetShift, math.MaxInt64>>offsetShift)) << offsetShift
}
