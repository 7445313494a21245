package qcow2

import (
	"encoding/binary"
	"fmt"
	"math"

	"imgferry/formats"
)

// loadRefTable reads the refcount table, and checks its entries.
func (c *checker) loadRefTable() error {
	n := uint64(c.refClusters) << c.clusterBits
	switch {
	case n > maxRefTableBytes:
		return formats.Corrupt(name, offRefcountClusters, "the refcount table has %d bytes, at most %d are allowed", n, maxRefTableBytes)
	case c.refTableOffset&uint64(c.clusterSize()-1) != 0 || c.refTableOffset > math.MaxInt64-n:
		return formats.Corrupt(name, offRefcountTable, "the refcount table's offset %#x is not that of a cluster", c.refTableOffset)
	}
	c.region(c.refTableOffset, n, offRefcountTable, "the refcount table")
	inFile := max(c.fileSize-int64(c.refTableOffset), 0)
	c.refTable = make([]byte, min(int64(n), (inFile+7)&^7)) // zeros from there on
	if err := c.read(c.refTable, int64(c.refTableOffset), "the refcount table"); err != nil {
		return err
	}
	for i := int64(0); i < int64(len(c.refTable)/8); i++ {
		e := c.refEntry(i)
		what := ""
		switch k := int64(e >> c.clusterBits); {
		case e&refcountReserved != 0:
			what = "has reserved bits set"
		case e&uint64(c.clusterSize()-1) != 0:
			what = "points into the middle of a cluster"
		case e != 0 && k >= c.clusters:
			what = "points past the end of the file"
		case e != 0:
			c.touch(k, k)
		}
		if what != "" {
			c.corrupt(int64(c.refTableOffset)+i*8, 1, fmt.Sprintf("entry %d of the refcount table %s", i, what))
		}
	}
	return nil
}

// refEntry is entry i of the refcount table.
func (c *checker) refEntry(i int64) uint64 { return binary.BigEndian.Uint64(c.refTable[i*8:]) }

// refBlock returns where the refcount block i lies, or 0 if all its counts are zero: there is none,
// or it lies past the end of the file. It is not good if that can't be the place of a cluster.
func (c *checker) refBlock(i int64) (offset int64, good bool) {
	if i >= int64(len(c.refTable)/8) {
		return 0, true
	}
	e := c.refEntry(i) &^ refcountReserved
	if e&uint64(c.clusterSize()-1) != 0 {
		return 0, false
	}
	if e >= uint64(c.fileSize) {
		return 0, true
	}
	return int64(e), true
}

// hasRefcounts reports whether there is a refcount block for any of the clusters [first, end).
func (c *checker) hasRefcounts(first, end int64) bool {
	per := c.refcountsPerBlock()
	for i := first / per; i <= (end-1)/per && i < int64(len(c.refTable)/8); i++ {
		if c.refEntry(i) != 0 {
			return true
		}
	}
	return false
}

// refcounts calls use with the reference counts that the file has for the clusters [first, end), or
// none with those that have no refcount block: their counts are 0. Clusters whose refcount block can't
// be found are left out.
func (c *checker) refcounts(first, end int64, use func(k int64, n uint64), none func(first, end int64)) error {
	per := c.refcountsPerBlock()
	perChunk := min(per, checkChunk*8>>c.refcountOrder)
	for first < end {
		stop := min(end, (first/perChunk+1)*perChunk)
		block, good := c.refBlock(first / per)
		empty := block == 0
		if !empty {
			var err error
			if empty, err = c.blocks.Empty(block, c.clusterSize()); err != nil {
				return err
			}
		}
		switch {
		case !good:
			first = stop
		case empty:
			none(first, stop)
			first = stop
		default:
			in := first / perChunk * perChunk % per // of the block, where the chunk starts
			p := c.buf[:perChunk<<c.refcountOrder>>3]
			if err := c.read(p, block+in<<c.refcountOrder>>3, "a refcount block"); err != nil {
				return err
			}
			for ; first < stop; first++ {
				use(first, refcountAt(p, first%perChunk, c.refcountOrder))
			}
		}
	}
	return nil
}

// refcountIsOne is for clusters outside all windows. A count that can't be found isn't one.
func (c *checker) refcountIsOne(k int64) (bool, error) {
	per := c.refcountsPerBlock()
	block, good := c.refBlock(k / per)
	if !good || block == 0 {
		return false, nil
	}
	// The 8 bytes around the entry, whatever its width.
	var p [8]byte
	in := k % per
	off := in << c.refcountOrder >> 6 << 3
	if err := c.read(p[:], block+off, "a refcount block"); err != nil {
		return false, err
	}
	return refcountAt(p[:], in-off<<3>>c.refcountOrder, c.refcountOrder) == 1, nil
}
