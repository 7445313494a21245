package qcow2

import (
	"fmt"
	"math/bits"
)

// The file begins with the header, the L1 table and the refcount table, both as long as a full disk
// needs them: what is not used stays a hole. Behind them lie the refcount blocks that describe these
// first clusters and themselves. Every later refcount block is the first of the clusters that it
// describes. So all places but those of L2 tables and data follow from the size of the disk.

const (
	// maxWriterSize is in bytes; it keeps sums of clusters within 63 bits.
	maxWriterSize = 1 << 60
	refcountOrder = 4 // 16 bits, QEMU's default
	refcountBytes = 1 << refcountOrder / 8
	l1EntryBytes  = 8
	refEntryBytes = 8
)

// plan is where the tables lie. Offsets and lengths are in clusters unless they say otherwise.
type plan struct {
	clusterBits uint32
	clusterSize int64 // bytes
	l1Entries   int64
	l1          int64 // offset of the L1 table
	refTable    int64 // offset of the refcount table
	refBlocks   int64 // offset of the first refcount blocks, which lie together
	firstBlocks int64 // how many those are
	perBlock    int64 // clusters that a refcount block describes
}

// ceilDiv rounds a/b up.
func ceilDiv(a, b int64) int64 { return (a + b - 1) / b }

// planFor returns the plan for a disk of size bytes, at most maxWriterSize, or says which cluster size
// would do: 2 MiB always does.
func planFor(size, clusterSize int64) (plan, error) {
	p, ok := makePlan(size, clusterSize)
	if ok {
		return p, nil
	}
	larger := clusterSize
	for !ok {
		larger *= 2
		_, ok = makePlan(size, larger)
	}
	return p, fmt.Errorf("%s: clusters of %d bytes are too small for a disk of %d bytes: choose at least %d", name, clusterSize, size, larger)
}

// makePlan says too whether the tables are short enough for QEMU.
func makePlan(size, clusterSize int64) (p plan, ok bool) {
	p = plan{
		clusterBits: uint32(bits.TrailingZeros64(uint64(clusterSize))),
		clusterSize: clusterSize,
		l1:          1,
		perBlock:    clusterSize / refcountBytes,
	}
	data := ceilDiv(size, clusterSize)
	p.l1Entries = max(ceilDiv(data, clusterSize/8), 1)
	p.refTable = p.l1 + ceilDiv(p.l1Entries*l1EntryBytes, clusterSize)
	// No cluster of the disk takes more than one of the file. The refcount table is for them, the
	// L2 tables, the refcount blocks and itself, so its length is found by trying.
	for table := int64(1); ; {
		p.refBlocks = p.refTable + table
		others := p.refBlocks + data + p.l1Entries
		// Of the clusters that a block describes, one is a block.
		blocks := ceilDiv(others, p.perBlock-1) + 1
		needed := ceilDiv(blocks*refEntryBytes, clusterSize)
		if needed <= table {
			break
		}
		table = needed
	}
	p.firstBlocks = ceilDiv(p.refBlocks, p.perBlock-1)
	return p, p.l1Entries*l1EntryBytes <= maxL1Bytes && (p.refBlocks-p.refTable)*clusterSize <= maxRefTableBytes
}

// header is that of a disk of size bytes.
func (p *plan) header(size int64, c Compression) header {
	h := header{
		version:        3,
		clusterBits:    p.clusterBits,
		size:           uint64(size),
		l1Entries:      uint32(p.l1Entries),
		l1Offset:       uint64(p.l1 * p.clusterSize),
		refTableOffset: uint64(p.refTable * p.clusterSize),
		refClusters:    uint32(p.refBlocks - p.refTable),
		refcountOrder:  refcountOrder,
		headerLen:      offCompressionType + 8, // with padding, as QEMU writes it
	}
	if c == Zstd {
		h.compressionTyp = compressionZstd
		h.incompatible = featureCompression
	}
	return h
}

// refBlock is the offset of refcount block i.
func (p *plan) refBlock(i int64) int64 {
	if i < p.firstBlocks {
		return p.refBlocks + i
	}
	return i * p.perBlock
}
