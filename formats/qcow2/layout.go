package qcow2

import (
	"encoding/binary"
	"math"

	"imgferry/formats"
)

// The sections named here are those of docs/interop/qcow2.txt in QEMU's sources. All integers are
// big-endian.

const name = "qcow2"

// magic is "QFI\xfb". QEMU's qcow (version 1) has the same one.
const magic = 0x514649fb

// Offsets in the header ("Header").
const (
	offMagic            = 0
	offVersion          = 4
	offBackingOffset    = 8
	offBackingSize      = 16
	offClusterBits      = 20
	offSize             = 24
	offCryptMethod      = 32
	offL1Entries        = 36
	offL1Offset         = 40
	offRefcountTable    = 48
	offRefcountClusters = 56
	offSnapshots        = 60
	offSnapshotTable    = 64
	headerLenV2         = 72
	offIncompatible     = 72
	offCompatible       = 80
	offAutoclear        = 88
	offRefcountOrder    = 96
	offHeaderLen        = 100
	minHeaderLenV3      = 104
	offCompressionType  = 104
	maxBackingName      = 1023
)

// Limits. QEMU has the same ones; it writes nothing beyond them.
const (
	minClusterBits = 9
	maxClusterBits = 21 // 2 MiB
	// minExtendedBits lets a subcluster be at least a sector.
	minExtendedBits = 14
	// maxL1Bytes bounds the one table that is kept whole, and with it the virtual size.
	maxL1Bytes       = 32 << 20
	maxRefTableBytes = 8 << 20
	maxRefcountOrder = 6
)

// Feature bits.
const (
	featureDirty        = 1 << 0
	featureCorrupt      = 1 << 1
	featureDataFile     = 1 << 2
	featureCompression  = 1 << 3
	featureExtendedL2   = 1 << 4
	knownIncompatible   = featureDirty | featureCorrupt | featureDataFile | featureCompression | featureExtendedL2
	compatLazyRefcounts = 1 << 0
	autoclearBitmaps    = 1 << 0
	autoclearRawData    = 1 << 1 // the external data file is the disk, byte for byte
)

// Values of the header's compression_type and crypt_method.
const (
	compressionZlib = 0
	compressionZstd = 1
	cryptAES        = 1
	cryptLUKS       = 2
)

// header is the fixed part of the first cluster.
type header struct {
	version        uint32
	backingOffset  uint64 // of the backing file's name, bytes; 0 if there is none
	backingSize    uint32 // length of that name, bytes
	clusterBits    uint32
	size           uint64 // virtual size, bytes
	cryptMethod    uint32
	l1Entries      uint32
	l1Offset       uint64 // bytes
	refTableOffset uint64 // offset of the refcount table, bytes
	refClusters    uint32 // its length in clusters
	snapshots      uint32 // how many
	snapshotTable  uint64 // offset, bytes
	incompatible   uint64
	compatible     uint64
	autoclear      uint64
	refcountOrder  uint32
	headerLen      uint32 // bytes
	compressionTyp uint8
}

// parseHeader reads the fields from the first bytes of the file and judges none of them but magic
// and version, which say where the fields are. p holds at least the header, or all of the file.
func parseHeader(p []byte) (header, error) {
	var h header
	be := binary.BigEndian
	if len(p) < headerLenV2 {
		return h, formats.Corrupt(name, int64(len(p)), "the file ends within the header")
	}
	if be.Uint32(p[offMagic:]) != magic {
		return h, formats.Corrupt(name, offMagic, "not a qcow2 image: the magic number is missing")
	}
	h = header{
		version:        be.Uint32(p[offVersion:]),
		backingOffset:  be.Uint64(p[offBackingOffset:]),
		backingSize:    be.Uint32(p[offBackingSize:]),
		clusterBits:    be.Uint32(p[offClusterBits:]),
		size:           be.Uint64(p[offSize:]),
		cryptMethod:    be.Uint32(p[offCryptMethod:]),
		l1Entries:      be.Uint32(p[offL1Entries:]),
		l1Offset:       be.Uint64(p[offL1Offset:]),
		refTableOffset: be.Uint64(p[offRefcountTable:]),
		refClusters:    be.Uint32(p[offRefcountClusters:]),
		snapshots:      be.Uint32(p[offSnapshots:]),
		snapshotTable:  be.Uint64(p[offSnapshotTable:]),
		refcountOrder:  4, // version 2: always 16 bits
		headerLen:      headerLenV2,
	}
	switch h.version {
	case 2:
		return h, nil
	case 3:
	default:
		return h, formats.Unsupported(name, offVersion, "version %d (known are 2 and 3)", h.version)
	}
	if len(p) < minHeaderLenV3 {
		return h, formats.Corrupt(name, int64(len(p)), "the file ends within the header")
	}
	h.incompatible = be.Uint64(p[offIncompatible:])
	h.compatible = be.Uint64(p[offCompatible:])
	h.autoclear = be.Uint64(p[offAutoclear:])
	h.refcountOrder = be.Uint32(p[offRefcountOrder:])
	h.headerLen = be.Uint32(p[offHeaderLen:])
	if h.headerLen > offCompressionType {
		if len(p) <= offCompressionType {
			return h, formats.Corrupt(name, int64(len(p)), "the file ends within the header")
		}
		h.compressionTyp = p[offCompressionType]
	}
	return h, nil
}

// clusterSize is in bytes.
func (h *header) clusterSize() int64 { return 1 << h.clusterBits }

// checkSizes refuses header fields that contradict each other or the limits. After it, clusterSize
// and l1Needed may be used.
func (h *header) checkSizes() error {
	switch {
	case h.clusterBits < minClusterBits || h.clusterBits > maxClusterBits:
		return formats.Corrupt(name, offClusterBits, "cluster_bits is %d, must be %d to %d", h.clusterBits, minClusterBits, maxClusterBits)
	case h.version == 3 && h.headerLen < minHeaderLenV3:
		return formats.Corrupt(name, offHeaderLen, "the header says it has %d bytes, version 3 has at least %d", h.headerLen, minHeaderLenV3)
	case int64(h.headerLen) > h.clusterSize():
		return formats.Corrupt(name, offHeaderLen, "the header says it has %d bytes, more than a cluster", h.headerLen)
	case h.size > math.MaxInt64:
		return formats.Corrupt(name, offSize, "the virtual size %d is beyond 63 bits", h.size)
	case h.refcountOrder > maxRefcountOrder:
		return formats.Corrupt(name, offRefcountOrder, "refcount_order is %d, at most %d", h.refcountOrder, maxRefcountOrder)
	case h.backingOffset > uint64(h.clusterSize()):
		return formats.Corrupt(name, offBackingOffset, "the backing file's name lies outside the first cluster")
	case h.backingOffset != 0 && uint64(h.backingSize) > min(maxBackingName, uint64(h.clusterSize())-h.backingOffset):
		return formats.Corrupt(name, offBackingSize, "the backing file's name is %d bytes long, too long", h.backingSize)
	}
	return nil
}

// checkStructure refuses what changes the meaning of the tables, and is not known here.
func (h *header) checkStructure(x extensions) error {
	if unknown := h.incompatible &^ knownIncompatible; unknown != 0 {
		return formats.Unsupported(name, offIncompatible, "incompatible feature %s", x.featureList(unknown))
	}
	if h.extended() && h.clusterBits < minExtendedBits {
		return formats.Corrupt(name, offClusterBits, "extended L2 entries need cluster_bits of at least %d, these are %d", minExtendedBits, h.clusterBits)
	}
	return nil
}

// checkFeatures refuses what this package can't read, by name.
func (h *header) checkFeatures(x extensions) error {
	if err := h.checkStructure(x); err != nil {
		return err
	}
	switch h.cryptMethod {
	case 0:
	case cryptAES:
		return formats.Unsupported(name, offCryptMethod, "the disk is encrypted (AES)")
	case cryptLUKS:
		return formats.Unsupported(name, offCryptMethod, "the disk is encrypted (LUKS)")
	default:
		return formats.Unsupported(name, offCryptMethod, "the disk is encrypted by the unknown method %d", h.cryptMethod)
	}
	switch {
	case h.compressionTyp > compressionZstd:
		return formats.Unsupported(name, offCompressionType, "compression type %d", h.compressionTyp)
	case (h.compressionTyp != compressionZlib) != (h.incompatible&featureCompression != 0):
		return formats.Corrupt(name, offCompressionType, "compression type %d contradicts the compression feature bit", h.compressionTyp)
	}
	return nil
}

// l1Table is where the L1 table of the disk, or of a snapshot, lies.
type l1Table struct {
	offset  uint64 // bytes
	entries uint32
	size    uint64 // virtual size in bytes
	at      int64  // where in the file this is said
}

func (h *header) activeL1() l1Table {
	return l1Table{offset: h.l1Offset, entries: h.l1Entries, size: h.size, at: offL1Entries}
}

// l1Needed is how many L1 entries size bytes of disk take. The entries beyond belong to the VM state
// of snapshots.
func (h *header) l1Needed(size uint64) uint64 {
	if size == 0 {
		return 0
	}
	return (size-1)>>(h.clusterBits+h.l2Bits()) + 1
}

// checkL1 refuses an L1 table that doesn't fit its virtual size or the file of fileSize bytes.
func (h *header) checkL1(t l1Table, fileSize int64) error {
	needed := h.l1Needed(t.size)
	if err := h.checkL1Place(t); err != nil {
		return err
	}
	if needed > 0 && (t.offset > uint64(fileSize) || needed*8 > uint64(fileSize)-t.offset) {
		return formats.Corrupt(name, int64(min(t.offset, math.MaxInt64)), "the L1 table reaches past the end of the file")
	}
	return nil
}

// checkL1Place is checkL1 for an L1 table that may reach past the end of the file.
func (h *header) checkL1Place(t l1Table) error {
	switch needed := h.l1Needed(t.size); {
	case uint64(t.entries)*8 > maxL1Bytes:
		return formats.Corrupt(name, t.at, "the L1 table has %d entries, at most %d are allowed", t.entries, maxL1Bytes/8)
	case needed > uint64(t.entries):
		return formats.Corrupt(name, t.at, "the L1 table has %d entries, too few for %d bytes", t.entries, t.size)
	case needed > 0 && (t.offset == 0 || t.offset&uint64(h.clusterSize()-1) != 0):
		return formats.Corrupt(name, t.at, "the L1 table's offset %#x is not that of a cluster", t.offset)
	}
	return nil
}
