package qcow2

import (
	"context"
	"encoding/binary"
	"math"

	"imgferry/formats"
)

// Limits of a check.
const (
	// maxCheckClusters of file can be numbered in 32 bits, with room for one more: 2 TiB of the
	// smallest clusters. QEMU checks half as many.
	maxCheckClusters = math.MaxUint32 - 1
	// windowClusters are counted in one pass over the tables, in 4 bytes each and a few bits.
	windowClusters = 16 << 20
	maxWindows     = maxCheckClusters/windowClusters + 1
	// checkChunk is how many bytes of a table are read at once.
	checkChunk = 256 << 10
)

// checker compares what the tables of an image use with what its reference counts say. References
// are counted in windows of the file, so that memory is bounded.
type checker struct {
	ctx   context.Context
	src   formats.Source
	found func(formats.Finding)
	firstCluster
	fileSize int64 // bytes
	clusters int64 // of the file, the last one perhaps cut
	// end is clusters, or one more: the last sectors of compressed data may lie past the end.
	end      int64
	refTable []byte // the refcount table, as in the file
	// regions and bitmaps are the metadata whose places the headers tell, all in the file.
	regions []region
	bitmaps []bitmapTable
	l2      l2Tables
	// holes are the file's, where tables may lie, and blocks those where refcount blocks may.
	holes, blocks *formats.Holes
	touched       [maxWindows]bool // the windows that something uses
	buf           []byte           // of checkChunk bytes
	sum           formats.Checked
}

// region is a run of metadata in the file, in bytes.
type region struct {
	offset, length int64
}

// check looks for contradictions in tables and reference counts, and counts them as qemu-img check
// does. It finds more than that: metadata and other data in one cluster whose count allows for both,
// zero clusters in version 2, reserved bits that QEMU does not look at, tables and data that are cut
// by the end of the file, and snapshots whose L1 table is too small. It reports one fault for an
// entry that has several, and doesn't look at what an L1 entry points at that points into the middle
// of a cluster or nowhere.
//
// Neither the dirty nor the corrupt bit is a finding: what they warn of is.
func check(ctx context.Context, src formats.Source, found func(formats.Finding)) (formats.Checked, error) {
	f, err := readFirst(ctx, src)
	if err != nil {
		return formats.Checked{}, err
	}
	c := &checker{ctx: ctx, src: src, found: found, firstCluster: f, fileSize: src.Size(), buf: make([]byte, checkChunk),
		holes: formats.NewHoles(ctx, name, src), blocks: formats.NewHoles(ctx, name, src)}
	if err := c.prepare(); err != nil {
		return formats.Checked{}, err
	}
	w := newWindow(c)
	// The first pass reads all tables, and finds out which windows they have references in.
	for first := int64(0); first < c.end; first += windowClusters {
		if first > 0 && !c.touched[first/windowClusters] && !c.hasRefcounts(first, first+windowClusters) {
			continue
		}
		if err := w.check(first); err != nil {
			return formats.Checked{}, err
		}
	}
	return c.sum, nil
}

// prepare finds all metadata but what L2 tables point at.
func (c *checker) prepare() error {
	if err := c.checkStructure(c.extensions); err != nil {
		return err
	}
	if err := c.checkL1Place(c.activeL1()); err != nil {
		return err
	}
	if c.clusters = c.roundUp(c.fileSize); c.clusters > maxCheckClusters {
		return formats.Unsupported(name, -1, "the file has %d clusters, at most %d can be checked", c.clusters, int64(maxCheckClusters))
	}
	c.end = c.clusters
	c.sum.Clusters = c.roundUp(int64(c.size))
	c.region(0, uint64(c.clusterSize()), 0, "the header")
	if c.cryptMethod == cryptLUKS && len(c.crypto) >= 16 { // "Full disk encryption header pointer"
		offset, length := binary.BigEndian.Uint64(c.crypto), binary.BigEndian.Uint64(c.crypto[8:])
		c.region(offset, length, int64(c.headerLen), "the LUKS header")
	}
	for _, step := range []func() error{c.loadRefTable, c.collectActive, c.collectSnapshots, c.collectBitmaps} {
		if err := step(); err != nil {
			return err
		}
	}
	return c.l2.settle()
}

// roundUp is how many clusters n bytes take.
func (c *checker) roundUp(n int64) int64 {
	return n>>c.clusterBits + min(n&(c.clusterSize()-1), 1)
}

// corrupt reports damage, n times, that shows at offset at of the file.
func (c *checker) corrupt(at, n int64, what string) {
	if n > 0 {
		c.found(formats.Finding{Offset: at, Count: n, What: what})
	}
}

// inBounds reports whether length bytes at offset lie in the file. As for QEMU, the last of their
// clusters may be cut by its end.
func (c *checker) inBounds(offset, length uint64) bool {
	limit := uint64(c.fileSize + c.clusterSize())
	return offset < limit && length < limit-offset
}

// region notes metadata, or reports, as something seen at offset at, that it is not in the file.
func (c *checker) region(offset, length uint64, at int64, what string) {
	switch {
	case length == 0:
	case !c.inBounds(offset, length):
		c.corrupt(at, 1, what+" reaches past the end of the file")
	default:
		r := region{int64(offset), int64(length)}
		c.regions = append(c.regions, r)
		c.touch(c.span(r))
	}
}

// span returns the first and the last cluster of r.
func (c *checker) span(r region) (first, last int64) {
	return r.offset >> c.clusterBits, (r.offset + r.length - 1) >> c.clusterBits
}

// touch notes that the clusters from first to last are used.
func (c *checker) touch(first, last int64) {
	c.end = max(c.end, last+1)
	for w := first / windowClusters; w <= last/windowClusters; w++ {
		c.touched[w] = true
	}
}

// read fills p from off of the file. What lies past its end is zeros, as it is for QEMU.
func (c *checker) read(p []byte, off int64, what string) error {
	n := max(min(int64(len(p)), c.fileSize-off), 0)
	clear(p[n:])
	if n == 0 {
		return context.Cause(c.ctx)
	}
	return formats.ReadAt(c.ctx, name, c.src, p[:n], off, what)
}

// entries calls use with those of the count entries, of 8 bytes, of the table at offset that are not
// zero, and with their indexes.
func (c *checker) entries(offset, count int64, what string, use func(i int64, e uint64) error) error {
	count = min(count, (c.fileSize-offset+7)/8) // zeros from there on
	for i := int64(0); i < count; {
		p := c.buf[:min(checkChunk, (count-i)*8)]
		empty, err := c.holes.Empty(offset+i*8, int64(len(p)))
		if err == nil && empty {
			i += int64(len(p)) / 8
			continue
		}
		if err == nil {
			err = c.read(p, offset+i*8, what)
		}
		if err != nil {
			return err
		}
		for ; len(p) > 0; p, i = p[8:], i+1 {
			if e := binary.BigEndian.Uint64(p); e != 0 {
				if err := use(i, e); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
