package qcow2

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"imgferry/formats"
	"imgferry/formats/mapped"
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
	offSnapshots        = 60
	headerLenV2         = 72
	offIncompatible     = 72
	offCompatible       = 80
	offRefcountOrder    = 96
	offHeaderLen        = 100
	minHeaderLenV3      = 104
	offCompressionType  = 104
	maxBackingName      = 1023
	extHeaderLen        = 8  // type and length of a header extension ("Header extensions")
	featureNameLen      = 48 // one entry of the feature name table
	featureIncompatible = 0  // its type for incompatible features
)

// Limits. QEMU has the same ones; it writes nothing beyond them.
const (
	minClusterBits = 9
	maxClusterBits = 21 // 2 MiB
	// maxL1Bytes bounds the one table that is kept whole, and with it the virtual size.
	maxL1Bytes       = 32 << 20
	maxRefcountOrder = 6
)

// Incompatible feature bits.
const (
	featureDirty        = 1 << 0
	featureCorrupt      = 1 << 1
	featureDataFile     = 1 << 2
	featureCompression  = 1 << 3
	featureExtendedL2   = 1 << 4
	knownIncompatible   = featureDirty | featureCorrupt | featureDataFile | featureCompression | featureExtendedL2
	compatLazyRefcounts = 1 << 0
)

// Header extension types.
const (
	extEnd           = 0x00000000
	extBackingFormat = 0xe2792aca
	extFeatureNames  = 0x6803f857
	extDataFile      = 0x44415441
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
	snapshots      uint32
	incompatible   uint64
	compatible     uint64
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
		version:       be.Uint32(p[offVersion:]),
		backingOffset: be.Uint64(p[offBackingOffset:]),
		backingSize:   be.Uint32(p[offBackingSize:]),
		clusterBits:   be.Uint32(p[offClusterBits:]),
		size:          be.Uint64(p[offSize:]),
		cryptMethod:   be.Uint32(p[offCryptMethod:]),
		l1Entries:     be.Uint32(p[offL1Entries:]),
		l1Offset:      be.Uint64(p[offL1Offset:]),
		snapshots:     be.Uint32(p[offSnapshots:]),
		refcountOrder: 4, // version 2: always 16 bits
		headerLen:     headerLenV2,
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

// checkFeatures refuses what this package can't read, by name.
func (h *header) checkFeatures(x extensions) error {
	if unknown := h.incompatible &^ knownIncompatible; unknown != 0 {
		return formats.Unsupported(name, offIncompatible, "incompatible feature %s", x.featureList(unknown))
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
	case h.incompatible&featureExtendedL2 != 0:
		return formats.Unsupported(name, offIncompatible, "extended L2 entries (subclusters)")
	}
	return nil
}

// l2Bits is the base-two logarithm of the number of entries in an L2 table, which fills one cluster
// ("Cluster mapping").
func (h *header) l2Bits() uint32 { return h.clusterBits - 3 }

// l1Needed is how many L1 entries the virtual size takes. The entries beyond belong to the VM state
// of snapshots.
func (h *header) l1Needed() uint64 {
	if h.size == 0 {
		return 0
	}
	return (h.size-1)>>(h.clusterBits+h.l2Bits()) + 1
}

// checkL1 refuses an L1 table that doesn't fit the virtual size or the file of fileSize bytes.
func (h *header) checkL1(fileSize int64) error {
	switch {
	case uint64(h.l1Entries)*8 > maxL1Bytes:
		return formats.Corrupt(name, offL1Entries, "the L1 table has %d entries, at most %d are allowed", h.l1Entries, maxL1Bytes/8)
	case h.l1Needed() > uint64(h.l1Entries):
		return formats.Corrupt(name, offL1Entries, "the L1 table has %d entries, too few for %d bytes", h.l1Entries, h.size)
	case h.l1Needed() == 0:
		return nil
	case h.l1Offset == 0 || h.l1Offset&uint64(h.clusterSize()-1) != 0:
		return formats.Corrupt(name, offL1Offset, "the L1 table's offset %#x is not that of a cluster", h.l1Offset)
	case h.l1Offset > uint64(fileSize) || h.l1Needed()*8 > uint64(fileSize)-h.l1Offset:
		return formats.Corrupt(name, int64(min(h.l1Offset, math.MaxInt64)), "the L1 table reaches past the end of the file")
	}
	return nil
}

// extensions is what the rest of the first cluster says.
type extensions struct {
	backingFormat string
	dataFile      string
	featureNames  map[int]string // incompatible features by bit
}

// parseExtensions reads the header extensions, which lie in area, at offset base of the file
// ("Header extensions"). Unknown ones are skipped.
func parseExtensions(area []byte, base int64) (extensions, error) {
	var x extensions
	for pos := 0; len(area)-pos >= extHeaderLen; {
		typ := binary.BigEndian.Uint32(area[pos:])
		if typ == extEnd {
			break
		}
		n := int64(binary.BigEndian.Uint32(area[pos+4:]))
		if n > int64(len(area)-pos-extHeaderLen) {
			return x, formats.Corrupt(name, base+int64(pos), "a header extension of %d bytes reaches past the header area", n)
		}
		data := area[pos+extHeaderLen:][:n]
		switch typ {
		case extBackingFormat:
			x.backingFormat = string(data)
		case extDataFile:
			x.dataFile = string(data)
		case extFeatureNames:
			x.featureNames = parseFeatureNames(data)
		}
		pos += extHeaderLen + int(n+7)&^7
	}
	return x, nil
}

// parseFeatureNames reads the names of incompatible features ("Feature name table").
func parseFeatureNames(p []byte) map[int]string {
	names := map[int]string{}
	for ; len(p) >= featureNameLen; p = p[featureNameLen:] {
		if p[0] == featureIncompatible && p[1] < 64 {
			names[int(p[1])] = strings.TrimRight(string(p[2:featureNameLen]), "\x00")
		}
	}
	return names
}

// featureList names the bits that are set: `bit 7 ("shiny"), bit 9`.
func (x extensions) featureList(set uint64) string {
	var list []string
	for bit := range 64 {
		if set&(1<<bit) == 0 {
			continue
		}
		s := fmt.Sprintf("bit %d", bit)
		if n := x.featureNames[bit]; n != "" {
			s += fmt.Sprintf(" (%q)", n)
		}
		list = append(list, s)
	}
	return strings.Join(list, ", ")
}

// Table entries ("Cluster mapping").
const (
	entryOffset     = 0x00fffffffffffe00 // bits 9-55: the offset in the file
	entryCompressed = 1 << 62
	entryZero       = 1 << 0
	// Bit 63 (refcount is one) only matters to writers.
	l1Reserved = 0x7f000000000001ff
	l2Reserved = 0x3f000000000001fe
)

// cluster is a decoded L2 entry.
type cluster struct {
	kind mapped.Kind
	// host is where the bytes start in the file, for Data and Encoded.
	host int64
	// stored is the most bytes that the compressed data takes.
	stored int64
}

// parseL2Entry decodes a standard L2 entry. what names the fault if there is one.
func (h *header) parseL2Entry(e uint64) (c cluster, what string) {
	if e&entryCompressed != 0 {
		return h.parseCompressed(e)
	}
	if e&l2Reserved != 0 {
		// QEMU reads on. A set reserved bit is damage, or a feature that nobody declared: both
		// would end in wrong bytes without a word.
		return cluster{}, "has reserved bits set"
	}
	host := int64(e & entryOffset)
	if host&(h.clusterSize()-1) != 0 {
		return cluster{}, "points into the middle of a cluster"
	}
	switch {
	case e&entryZero != 0 && h.version < 3:
		return cluster{}, "is a zero cluster, which version 2 does not have"
	case e&entryZero != 0:
		return cluster{kind: mapped.Zero}, ""
	case host == 0:
		return cluster{}, ""
	}
	return cluster{kind: mapped.Data, host: host}, ""
}

// parseCompressed decodes a "Compressed Clusters Descriptor": an offset of any alignment, and how
// many 512-byte sectors the data touches beyond the first.
func (h *header) parseCompressed(e uint64) (c cluster, what string) {
	offsetBits := 62 - (h.clusterBits - 8)
	host := e & (1<<offsetBits - 1)
	if host>>56 != 0 {
		return cluster{}, "has reserved bits set"
	}
	more := e &^ (1<<63 | entryCompressed) >> offsetBits
	return cluster{kind: mapped.Encoded, host: int64(host), stored: int64(more+1)*512 - int64(host&511)}, ""
}
