package vdi

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"

	"imgferry/formats"
)

// The names in brackets are those of VirtualBox, src/VBox/Storage/VDICore.h. All integers are
// little-endian.

const name = "vdi"

// signature follows 64 bytes of text for human eyes.
const signature = 0xbeda107f

// version11 is the only version there is: major number 1, minor number 1.
const version11 = 1<<16 | 1

// Offsets in the header, in bytes.
const (
	offSignature       = 64
	offVersion         = 68
	offHeaderSize      = 72  // cbHeader: of what begins here
	offType            = 76  // u32Type
	offMapOffset       = 340 // offBlocks
	offDataOffset      = 344 // offData
	offSectorSize      = 360 // LegacyGeometry.cbSector
	offDiskSize        = 368 // cbDisk
	offBlockSize       = 376 // cbBlock
	offBlockExtra      = 380 // cbBlockExtra
	offBlocks          = 384 // cBlocks
	offBlocksAllocated = 388 // cBlocksAllocated
	offUUID            = 392 // uuidCreate
	offLinkUUID        = 424 // uuidLinkage: the image that this one differs from
	offParentUUID      = 440 // uuidParentModify: the state in which it was
	headerLen          = 456
	minHeaderSize      = headerLen - offHeaderSize
)

// Image types.
const (
	typeDynamic      = 1
	typeStatic       = 2
	typeUndo         = 3
	typeDifferencing = 4
)

// Entries of the block map from here on are no block's number.
const (
	entryDiscarded = 0xfffffffe // VDI_IMAGE_BLOCK_ZERO
	// The other is 0xffffffff, VDI_IMAGE_BLOCK_FREE: never written.
	entrySize = 4 // bytes
)

const (
	sectorSize = 512
	// maxBlockSize keeps offsets in the file within 63 bits. VirtualBox and QEMU write blocks of 1 MiB.
	maxBlockSize = 256 << 20
	// maxMapBytes bounds the block map, which is kept whole: 8 TiB of disk with the usual blocks.
	maxMapBytes = 32 << 20
)

// uuid is as in the file: the first three fields little-endian.
type uuid [16]byte

// String returns the usual notation.
func (u uuid) String() string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(u[:]), le.Uint16(u[4:]), le.Uint16(u[6:]), u[8:10], u[10:])
}

// header is what the file begins with. Offsets and sizes are in bytes.
type header struct {
	version    uint32
	headerSize uint32
	typ        uint32
	mapOffset  uint32
	dataOffset uint32
	sectorSize uint32
	diskSize   uint64
	blockSize  uint32
	blockExtra uint32 // bytes before each block
	blocks     uint32 // of the disk
	allocated  uint32 // blocks
	id         uuid
	link       uuid
	parent     uuid
}

// parseHeader reads the fields from the first bytes of the file and judges none of them but the
// signature and the version, which says where the others are. p holds at least headerLen bytes, or
// all of the file.
func parseHeader(p []byte) (header, error) {
	le := binary.LittleEndian
	if len(p) < headerLen {
		return header{}, formats.Corrupt(name, int64(len(p)), "the file ends within the header")
	}
	if le.Uint32(p[offSignature:]) != signature {
		return header{}, formats.Corrupt(name, offSignature, "not a VDI image: the signature is missing")
	}
	if v := le.Uint32(p[offVersion:]); v != version11 {
		return header{}, formats.Unsupported(name, offVersion, "version %d.%d (known is 1.1)", v>>16, v&0xffff)
	}
	return header{
		version:    version11,
		headerSize: le.Uint32(p[offHeaderSize:]),
		typ:        le.Uint32(p[offType:]),
		mapOffset:  le.Uint32(p[offMapOffset:]),
		dataOffset: le.Uint32(p[offDataOffset:]),
		sectorSize: le.Uint32(p[offSectorSize:]),
		diskSize:   le.Uint64(p[offDiskSize:]),
		blockSize:  le.Uint32(p[offBlockSize:]),
		blockExtra: le.Uint32(p[offBlockExtra:]),
		blocks:     le.Uint32(p[offBlocks:]),
		allocated:  le.Uint32(p[offBlocksAllocated:]),
		id:         uuid(p[offUUID:]),
		link:       uuid(p[offLinkUUID:]),
		parent:     uuid(p[offParentUUID:]),
	}, nil
}

// check refuses header fields that contradict each other, the limits, or the file of fileSize
// bytes. The other methods may only be used after it.
func (h *header) check(fileSize int64) error {
	if err := h.checkType(); err != nil {
		return err
	}
	mapEnd := int64(h.mapOffset) + h.mapBytes()
	switch {
	case h.headerSize < minHeaderSize:
		return formats.Corrupt(name, offHeaderSize, "the header says it has %d bytes, version 1.1 has at least %d", h.headerSize, minHeaderSize)
	case h.sectorSize != sectorSize:
		return formats.Unsupported(name, offSectorSize, "sectors of %d bytes", h.sectorSize)
	case !h.goodBlockSize():
		return formats.Corrupt(name, offBlockSize, "blocks of %d bytes, must be a power of two from %d to %d", h.blockSize, sectorSize, maxBlockSize)
	case h.blockExtra > h.blockSize:
		return formats.Corrupt(name, offBlockExtra, "%d extra bytes with each block of %d bytes", h.blockExtra, h.blockSize)
	case h.diskSize > math.MaxInt64:
		return formats.Corrupt(name, offDiskSize, "the virtual size %d is beyond 63 bits", h.diskSize)
	case h.diskSize > uint64(h.blocks)*uint64(h.blockSize):
		return formats.Corrupt(name, offBlocks, "%d blocks of %d bytes are too few for %d bytes", h.blocks, h.blockSize, h.diskSize)
	case int64(h.mapOffset) < offHeaderSize+int64(h.headerSize):
		return formats.Corrupt(name, offMapOffset, "the block map at %d lies in the header", h.mapOffset)
	case mapEnd > fileSize:
		return formats.Corrupt(name, offMapOffset, "the block map of %d bytes reaches past the end of the file", h.mapBytes())
	case int64(h.dataOffset) < mapEnd:
		return formats.Corrupt(name, offDataOffset, "the data at %d lies in the block map, which ends at %d", h.dataOffset, mapEnd)
	case h.mapBytes() > maxMapBytes:
		return formats.Unsupported(name, offBlocks, "a block map of %d bytes, at most %d are read", h.mapBytes(), maxMapBytes)
	}
	return nil
}

func (h *header) checkType() error {
	switch {
	case h.typ == typeUndo:
		return formats.Unsupported(name, offType, "the disk is an undo image: its parent disk is known by UUID %v only", h.link)
	case h.typ == typeDifferencing:
		return formats.Unsupported(name, offType, "the disk is a differencing image: its parent disk is known by UUID %v only", h.link)
	case h.typ != typeDynamic && h.typ != typeStatic:
		return formats.Unsupported(name, offType, "image type %d", h.typ)
	case h.link != uuid{}:
		return formats.Unsupported(name, offLinkUUID, "the image is linked to the parent disk with UUID %v", h.link)
	case h.parent != uuid{}:
		return formats.Unsupported(name, offParentUUID, "the image is linked to the parent disk with UUID %v", h.parent)
	}
	return nil
}

func (h *header) goodBlockSize() bool {
	return h.blockSize >= sectorSize && h.blockSize <= maxBlockSize && bits.OnesCount32(h.blockSize) == 1
}

// mapBytes is the size of the block map.
func (h *header) mapBytes() int64 { return int64(h.blocks) * entrySize }

// block is the block size in bytes.
func (h *header) block() int64 { return int64(h.blockSize) }

// stride is the distance from one stored block to the next, in bytes.
func (h *header) stride() int64 { return int64(h.blockExtra) + h.block() }

// host is where in the file the bytes of the stored block e lie. What precedes each block (block
// extra) is not the disk's.
func (h *header) host(e uint32) int64 {
	return int64(h.dataOffset) + int64(e)*h.stride() + int64(h.blockExtra)
}

// inFile reports whether the file of fileSize bytes holds the stored block e for disk offset guest.
// Of the disk's last block it must hold the bytes that belong to the disk.
func (h *header) inFile(e uint32, guest, fileSize int64) bool {
	return h.host(e) <= fileSize-min(h.block(), int64(h.diskSize)-guest)
}
