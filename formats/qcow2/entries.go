package qcow2

import (
	"math/bits"

	"imgferry/formats/mapped"
)

// Table entries ("Cluster mapping").
const (
	entryOffset     = 0x00fffffffffffe00 // bits 9-55: the offset in the file
	entryCopied     = 1 << 63            // the reference count is one; only writers need to know
	entryCompressed = 1 << 62
	entryZero       = 1 << 0 // not with extended L2 entries
	l1Reserved      = 0x7f000000000001ff
	l2Reserved      = 0x3f000000000001fe

	subclusterBits = 5 // 32 subclusters, with extended L2 entries
	allSubclusters = 1<<32 - 1
)

// cluster is a decoded L2 entry.
type cluster struct {
	kind mapped.Kind
	// host is where the bytes start in the file, for Data and Encoded. A preallocated Zero has one
	// too.
	host int64
	// stored is the most bytes that the compressed data takes.
	stored int64
	// data and zero say of each subcluster what it is, from bit 0 on; neither is a hole. Only with
	// extended L2 entries, and not for Encoded.
	data, zero uint32
}

// parseL2Entry decodes a standard L2 entry. what names the fault if there is one; host is filled in
// even so.
func (h *header) parseL2Entry(e uint64) (c cluster, what string) {
	if e&entryCompressed != 0 {
		if c, what = h.parseCompressed(e); what == "" && h.incompatible&featureDataFile != 0 {
			what = "is compressed, which no image with an external data file is"
		}
		return c, what
	}
	c.host = int64(e & entryOffset)
	switch {
	case e&entryZero != 0:
		c.kind = mapped.Zero
	// Offset 0 is that of the header; in an external data file it is that of the first cluster.
	case c.host != 0 || e&entryCopied != 0 && h.incompatible&featureDataFile != 0:
		c.kind = mapped.Data
	}
	switch {
	case e&l2Reserved != 0:
		// QEMU reads on. A set reserved bit is damage, or a feature that nobody declared: both
		// would end in wrong bytes without a word.
		what = "has reserved bits set"
	case c.host&(h.clusterSize()-1) != 0:
		what = "points into the middle of a cluster"
	case e&entryZero != 0 && h.version < 3:
		what = "is a zero cluster, which version 2 does not have"
	}
	return c, what
}

// parseExtended decodes an extended L2 entry: e is a standard one, and bitmap tells of its
// subclusters ("Extended L2 Entries").
func (h *header) parseExtended(e, bitmap uint64) (c cluster, what string) {
	if c, what = h.parseL2Entry(e &^ entryZero); what != "" {
		return c, what
	}
	alloc, zero := uint32(bitmap), uint32(bitmap>>32)
	switch {
	case c.kind == mapped.Encoded:
		if bitmap != 0 {
			what = "is compressed, but has subclusters"
		}
		return c, what
	case e&entryZero != 0:
		what = "has reserved bits set"
	case alloc&zero != 0:
		what = "has a subcluster that is both allocated and zero"
	case c.kind == mapped.Hole && alloc != 0:
		what = "has allocated subclusters, but no cluster"
	}
	c.data, c.zero = alloc, zero
	return c, what
}

// parseCompressed decodes a "Compressed Clusters Descriptor": an offset of any alignment, and how
// many 512-byte sectors the data touches beyond the first.
func (h *header) parseCompressed(e uint64) (c cluster, what string) {
	offsetBits := 62 - (h.clusterBits - 8)
	host := e & (1<<offsetBits - 1)
	more := e &^ (entryCopied | entryCompressed) >> offsetBits
	c = cluster{kind: mapped.Encoded, host: int64(host), stored: int64(more+1)*512 - int64(host&511)}
	if host>>56 != 0 {
		what = "has reserved bits set"
	}
	return c, what
}

// extended reports whether L2 entries are extended: twice as long, with subclusters.
func (h *header) extended() bool { return h.incompatible&featureExtendedL2 != 0 }

// entryBits is the base-two logarithm of the length in bytes of an L2 entry.
func (h *header) entryBits() uint32 { return 3 + uint32(h.incompatible/featureExtendedL2&1) }

// l2Bits is the base-two logarithm of the number of entries in an L2 table, which fills one cluster.
func (h *header) l2Bits() uint32 { return h.clusterBits - h.entryBits() }

// subclusterSize is in bytes, with extended L2 entries.
func (h *header) subclusterSize() int64 { return 1 << (h.clusterBits - subclusterBits) }

// are returns the subclusters that are stored as kind says, a bit each.
func (c cluster) are(kind mapped.Kind) uint32 {
	switch {
	case c.kind == mapped.Encoded || kind == mapped.Encoded:
		if c.kind == kind {
			return allSubclusters
		}
		return 0
	case kind == mapped.Data:
		return c.data
	case kind == mapped.Zero:
		return c.zero
	}
	return ^(c.data | c.zero)
}

// kindOf is how subcluster sub is stored.
func (c cluster) kindOf(sub int64) mapped.Kind {
	for _, kind := range []mapped.Kind{mapped.Data, mapped.Zero, mapped.Encoded} {
		if c.are(kind)>>sub&1 != 0 {
			return kind
		}
	}
	return mapped.Hole
}

// needed is how many bytes of the cluster, from its start on, hold data.
func (c cluster) needed(h *header) int64 {
	if h.extended() {
		return int64(bits.Len32(c.data)) << (h.clusterBits - subclusterBits)
	}
	return h.clusterSize()
}
