package qed

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"strings"

	"imgferry/formats"
)

// The sections named here are those of docs/interop/qed_spec.txt in QEMU's sources. All integers
// are little-endian.

const name = "qed"

const magic = "QED\x00"

// Offsets in the header ("Header"), in bytes.
const (
	offMagic         = 0
	offClusterSize   = 4
	offTableSize     = 8
	offHeaderSize    = 12
	offFeatures      = 16
	offL1Offset      = 40
	offImageSize     = 48
	offBackingOffset = 56
	offBackingSize   = 60
	headerLen        = 64
)

// Limits. Those of the clusters and tables are the specification's.
const (
	minClusterSize = 1 << 12
	maxClusterSize = 1 << 26
	maxTableSize   = 16 // clusters
	sectorSize     = 512
	// maxBackingName is QEMU's limit, in bytes.
	maxBackingName = 1023
)

// Feature bits that a reader must know. There are no defined compatible or autoclear features:
// readers ignore the former, and so they may the latter.
const (
	featureBacking   = 1 << 0
	featureNeedCheck = 1 << 1
	featureNoProbe   = 1 << 2 // the backing file is a raw disk, whatever its bytes look like
	knownFeatures    = featureBacking | featureNeedCheck | featureNoProbe
)

// Table entries with a meaning of their own ("Tables"). All others are offsets in the file.
const (
	entryHole = 0
	entryZero = 1 // in L2 tables only
	entrySize = 8 // bytes
)

// header is what the file begins with.
type header struct {
	clusterSize   uint32 // bytes
	tableSize     uint32 // of an L1 or L2 table, clusters
	headerSize    uint32 // clusters
	features      uint64
	l1Offset      uint64 // bytes
	imageSize     uint64 // virtual size, bytes
	backingOffset uint32 // of the backing file's name, bytes
	backingSize   uint32 // length of that name, bytes
}

// parseHeader reads the fields from the first bytes of the file and judges none of them but the
// magic number. p holds at least headerLen bytes, or all of the file.
func parseHeader(p []byte) (header, error) {
	le := binary.LittleEndian
	if len(p) < headerLen {
		return header{}, formats.Corrupt(name, int64(len(p)), "the file ends within the header")
	}
	if string(p[offMagic:][:len(magic)]) != magic {
		return header{}, formats.Corrupt(name, offMagic, "not a QED image: the magic number is missing")
	}
	return header{
		clusterSize:   le.Uint32(p[offClusterSize:]),
		tableSize:     le.Uint32(p[offTableSize:]),
		headerSize:    le.Uint32(p[offHeaderSize:]),
		features:      le.Uint64(p[offFeatures:]),
		l1Offset:      le.Uint64(p[offL1Offset:]),
		imageSize:     le.Uint64(p[offImageSize:]),
		backingOffset: le.Uint32(p[offBackingOffset:]),
		backingSize:   le.Uint32(p[offBackingSize:]),
	}, nil
}

// check refuses header fields that contradict each other, the limits, or the file of fileSize
// bytes. The other methods may only be used after it.
func (h *header) check(fileSize int64) error {
	if unknown := h.features &^ knownFeatures; unknown != 0 {
		return formats.Unsupported(name, offFeatures, "unknown feature %s", bitList(unknown))
	}
	switch {
	case !h.goodClusterSize():
		return formats.Corrupt(name, offClusterSize, "cluster_size is %d, must be a power of two from %d to %d", h.clusterSize, minClusterSize, maxClusterSize)
	case h.tableSize > maxTableSize || bits.OnesCount32(h.tableSize) != 1:
		return formats.Corrupt(name, offTableSize, "table_size is %d, must be a power of two from 1 to %d", h.tableSize, maxTableSize)
	case h.headerSize == 0:
		return formats.Corrupt(name, offHeaderSize, "header_size is 0, but the header takes a cluster")
	case h.imageSize > math.MaxInt64:
		return formats.Corrupt(name, offImageSize, "the virtual size %d is beyond 63 bits", h.imageSize)
	case h.imageSize%sectorSize != 0:
		return formats.Corrupt(name, offImageSize, "the virtual size %d is not a multiple of %d", h.imageSize, sectorSize)
	case h.imageSize != 0 && (h.imageSize-1)>>h.l2CoverBits()>>h.entryBits() != 0:
		return formats.Corrupt(name, offImageSize, "the virtual size %d is beyond what the tables cover", h.imageSize)
	case !h.inFile(h.l1Offset, h.tableBytes(), fileSize):
		return formats.Corrupt(name, offL1Offset, "the L1 table at %#x of %d bytes does not lie in the file's clusters", h.l1Offset, h.tableBytes())
	}
	return h.checkBacking(fileSize)
}

func (h *header) checkBacking(fileSize int64) error {
	end := uint64(h.backingOffset) + uint64(h.backingSize)
	switch {
	case h.features&featureBacking == 0:
		return nil
	case h.backingSize > maxBackingName:
		return formats.Corrupt(name, offBackingSize, "the backing file's name is %d bytes long, at most %d are allowed", h.backingSize, maxBackingName)
	case end > h.headerEnd() || end > uint64(fileSize):
		return formats.Corrupt(name, offBackingOffset, "the backing file's name lies outside the header's clusters")
	}
	return nil
}

func (h *header) goodClusterSize() bool {
	return h.clusterSize >= minClusterSize && h.clusterSize <= maxClusterSize && bits.OnesCount32(h.clusterSize) == 1
}

// bitList names the bits that are set: "bit 7, bit 9".
func bitList(set uint64) string {
	var list []string
	for ; set != 0; set &= set - 1 {
		list = append(list, fmt.Sprintf("bit %d", bits.TrailingZeros64(set)))
	}
	return strings.Join(list, ", ")
}

// cluster is the cluster size in bytes.
func (h *header) cluster() int64 { return int64(h.clusterSize) }

func (h *header) clusterBits() int { return bits.TrailingZeros32(h.clusterSize) }

// tableBytes is the size of an L1 or L2 table: at most 1 GiB.
func (h *header) tableBytes() int64 { return int64(h.tableSize) * h.cluster() }

// entryBits is the base-two logarithm of the number of entries in a table.
func (h *header) entryBits() int { return bits.TrailingZeros64(uint64(h.tableBytes() / entrySize)) }

// l2CoverBits is the base-two logarithm of the bytes of disk that one L2 table describes.
func (h *header) l2CoverBits() int { return h.clusterBits() + h.entryBits() }

// headerEnd is where the first regular cluster may lie, in bytes.
func (h *header) headerEnd() uint64 { return uint64(h.headerSize) << h.clusterBits() }

// l1Needed is how many L1 entries the virtual size takes. They are at most 16 MiB: the larger the
// tables, the more disk an entry covers.
func (h *header) l1Needed() int64 {
	if h.imageSize == 0 {
		return 0
	}
	return int64((h.imageSize-1)>>h.l2CoverBits()) + 1
}

// inFile reports whether off is a regular cluster's offset, and the n bytes of whole clusters from
// there on lie in the file of fileSize bytes ("Consistency checking").
func (h *header) inFile(off uint64, n, fileSize int64) bool {
	return off&uint64(h.clusterSize-1) == 0 && off >= h.headerEnd() && n <= fileSize && off <= uint64(fileSize-n)
}
