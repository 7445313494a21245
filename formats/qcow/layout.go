package qcow

import (
	"encoding/binary"
	"math"

	"imgferry/formats"
	"imgferry/formats/mapped"
)

// The format has no specification but QEMU's own reader and writer, block/qcow.c. All integers are
// big-endian.

const name = "qcow"

// magic is "QFI\xfb", which qcow2 has too, and version tells the two apart.
const (
	magic   = 0x514649fb
	version = 1
)

// Offsets in the header, in bytes.
const (
	offMagic         = 0
	offVersion       = 4
	offBackingOffset = 8
	offBackingSize   = 16
	// At 20: when the backing file was modified last, which nobody compares.
	offSize        = 24
	offClusterBits = 32
	offL2Bits      = 33
	offCryptMethod = 36
	offL1Offset    = 40
	headerLen      = 48
)

// Limits. Those of clusters, L2 tables and names are QEMU's.
const (
	minClusterBits = 9
	maxClusterBits = 16
	minL2Bits      = 6 // of entries; tables have 512 bytes to 64 KiB
	maxL2Bits      = 13
	maxBackingName = 1023
	sectorSize     = 512
	// maxL1Bytes bounds the one table that is kept whole: 8 TiB of disk as qemu-img makes them.
	maxL1Bytes = 32 << 20
)

// Values of crypt_method.
const (
	cryptNone = 0
	cryptAES  = 1
)

const (
	entrySize       = 8 // bytes, in both tables
	entryHole       = 0
	entryCompressed = 1 << 63
)

// header is what the file begins with.
type header struct {
	backingOffset uint64 // of the backing file's name, bytes; 0 if there is none
	backingSize   uint32 // length of that name, bytes
	size          uint64 // virtual size, bytes
	clusterBits   uint8
	l2Bits        uint8 // base-two logarithm of the entries in an L2 table
	cryptMethod   uint32
	l1Offset      uint64 // bytes
}

// parseHeader reads the fields from the first bytes of the file and judges none of them but magic
// and version, which say where the fields are. p holds at least headerLen bytes, or all of the file.
func parseHeader(p []byte) (header, error) {
	be := binary.BigEndian
	if len(p) < headerLen {
		return header{}, formats.Corrupt(name, int64(len(p)), "the file ends within the header")
	}
	if be.Uint32(p[offMagic:]) != magic {
		return header{}, formats.Corrupt(name, offMagic, "not a qcow image: the magic number is missing")
	}
	if v := be.Uint32(p[offVersion:]); v != version {
		return header{}, formats.Unsupported(name, offVersion, "version %d (known is 1; later ones are qcow2)", v)
	}
	return header{
		backingOffset: be.Uint64(p[offBackingOffset:]),
		backingSize:   be.Uint32(p[offBackingSize:]),
		size:          be.Uint64(p[offSize:]),
		clusterBits:   p[offClusterBits],
		l2Bits:        p[offL2Bits],
		cryptMethod:   be.Uint32(p[offCryptMethod:]),
		l1Offset:      be.Uint64(p[offL1Offset:]),
	}, nil
}

// check refuses header fields that contradict each other, the limits, or the file of fileSize
// bytes. The other methods may only be used after it.
func (h *header) check(fileSize int64) error {
	switch {
	case !h.goodClusterBits():
		return formats.Corrupt(name, offClusterBits, "cluster_bits is %d, must be %d to %d", h.clusterBits, minClusterBits, maxClusterBits)
	case h.l2Bits < minL2Bits || h.l2Bits > maxL2Bits:
		return formats.Corrupt(name, offL2Bits, "l2_bits is %d, must be %d to %d", h.l2Bits, minL2Bits, maxL2Bits)
	case h.size <= 1:
		return formats.Corrupt(name, offSize, "the virtual size is %d, must be at least 2", h.size)
	case h.size > math.MaxInt64:
		return formats.Corrupt(name, offSize, "the virtual size %d is beyond 63 bits", h.size)
	case h.cryptMethod == cryptAES:
		return formats.Unsupported(name, offCryptMethod, "the disk is encrypted (AES)")
	case h.cryptMethod != cryptNone:
		return formats.Unsupported(name, offCryptMethod, "the disk is encrypted by the unknown method %d", h.cryptMethod)
	case h.l1Offset < headerLen:
		return formats.Corrupt(name, offL1Offset, "the L1 table at %d lies in the header", h.l1Offset)
	case !inFile(h.l1Offset, h.l1Bytes(), fileSize):
		return formats.Corrupt(name, offL1Offset, "the L1 table at %#x of %d bytes reaches past the end of the file", h.l1Offset, h.l1Bytes())
	case h.l1Bytes() > maxL1Bytes:
		return formats.Unsupported(name, offSize, "a disk of %d bytes has an L1 table of %d bytes, at most %d are read", h.size, h.l1Bytes(), maxL1Bytes)
	case h.backingOffset == 0:
		return nil
	case h.backingSize > maxBackingName:
		return formats.Corrupt(name, offBackingSize, "the backing file's name is %d bytes long, at most %d are allowed", h.backingSize, maxBackingName)
	case !inFile(h.backingOffset, int64(h.backingSize), fileSize):
		return formats.Corrupt(name, offBackingOffset, "the backing file's name at %#x reaches past the end of the file", h.backingOffset)
	}
	return nil
}

func (h *header) goodClusterBits() bool {
	return h.clusterBits >= minClusterBits && h.clusterBits <= maxClusterBits
}

// inFile reports whether the n bytes at off lie in the file of fileSize bytes.
func inFile(off uint64, n, fileSize int64) bool {
	return n <= fileSize && off <= uint64(fileSize-n)
}

// cluster is the cluster size in bytes.
func (h *header) cluster() int64 { return 1 << h.clusterBits }

// l2Bytes is the size of an L2 table.
func (h *header) l2Bytes() int64 { return entrySize << h.l2Bits }

// l2CoverBits is the base-two logarithm of the bytes of disk that one L2 table describes.
func (h *header) l2CoverBits() uint8 { return h.clusterBits + h.l2Bits }

// l1Bytes is the size of the L1 table: the header doesn't say it, the virtual size does.
func (h *header) l1Bytes() int64 { return (int64(h.size-1)>>h.l2CoverBits() + 1) * entrySize }

// badL2 says what is wrong with the L1 entry that gives l2 as the offset of an L2 table, or "".
func (h *header) badL2(l2 uint64, fileSize int64) string {
	switch {
	case l2%sectorSize != 0:
		return "is not that of a sector"
	case !inFile(l2, h.l2Bytes(), fileSize):
		return "points past the end of the file"
	}
	return ""
}

// cluster is where a cluster of the disk is stored.
type cluster struct {
	kind mapped.Kind // Hole, Data or Encoded
	host int64       // where the bytes start in the file
	// stored is how many bytes the compressed data takes.
	stored int64
}

// parseL2Entry decodes an L2 entry: an offset, and in the uppermost bits of a compressed cluster
// its length. It judges nothing.
func (h *header) parseL2Entry(e uint64) cluster {
	switch {
	case e == entryHole:
		return cluster{kind: mapped.Hole}
	case e&entryCompressed == 0:
		return cluster{kind: mapped.Data, host: int64(e)}
	}
	offsetBits := 63 - h.clusterBits
	return cluster{
		kind:   mapped.Encoded,
		host:   int64(e & (1<<offsetBits - 1)),
		stored: int64(e &^ entryCompressed >> offsetBits),
	}
}

// bad says what is wrong with c, the cluster at disk offset guest, or "". Of the disk's last cluster
// the file must hold the bytes that belong to the disk.
func (h *header) bad(c cluster, guest, fileSize int64) string {
	switch c.kind {
	case mapped.Data:
		if c.host%sectorSize != 0 {
			return "is not that of a sector"
		}
		if !inFile(uint64(c.host), min(h.cluster(), int64(h.size)-guest), fileSize) {
			return "points past the end of the file"
		}
	case mapped.Encoded:
		if c.stored == 0 {
			return "gives compressed data no bytes"
		}
		if !inFile(uint64(c.host), c.stored, fileSize) {
			return "points past the end of the file"
		}
	}
	return ""
}
