package vmdk

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"imgferry/bitmap"
)

const (
	// blockSize is the unit of Encode and WriteBlock in bytes.
	blockSize = bitmap.BlockSize
	// The sizes that VMware and QEMU write.
	grainSize     = 64 << 10 // bytes
	gtesPerGT     = 512
	tableSize     = gtesPerGT * entryBytes // bytes of a grain table
	tableSpan     = gtesPerGT * grainSize  // bytes of disk that it describes
	grainsInBlock = blockSize / grainSize
	// The descriptor lies behind the header, in the room that VMware reserves.
	descriptorAt      = 1  // sectors
	descriptorSectors = 20 // at most
	maxExtentName     = 255
	defaultName       = "disk.vmdk"
)

// adapterTypes are the values of WriterOptions.AdapterType, the default first.
var adapterTypes = []string{"ide", "buslogic", "lsilogic", "legacyESX"}

// WriterOptions say what a Writer makes. With the disk's content they decide every byte of the file.
type WriterOptions struct {
	// Size is the size of the disk in bytes. It is rounded up to a multiple of 512.
	Size int64
	// Name is the file's own name, which the descriptor in it repeats: VMware looks for it. It has no
	// directory. "" stands for disk.vmdk.
	Name string
	// AdapterType is that of the virtual controller: "ide" (or ""), "buslogic", "lsilogic" or
	// "legacyESX".
	AdapterType string
	// HardwareVersion is that of the virtual machine. 0 stands for 4, QEMU's default.
	HardwareVersion int
	// Level is for NewStreamWriter.
	Level Level
}

// Writer writes a VMDK file in the order of the disk. Any number of goroutines may Encode; WriteBlock
// and Close belong to one. Grains of zeros are not stored, or others if EncodeSparse says so. Memory is a grain table, 4 bytes for each
// 32 MiB of disk, and the state of an encoder for each goroutine in Encode.
type Writer struct {
	o      WriterOptions
	form   form
	head   header
	blocks int64 // of the disk
	last   int64 // bytes of the disk in the last block

	next    int64 // the least block that WriteBlock takes
	started bool
	err     error // sticky
}

// form is how the disk lies in the file.
type form interface {
	createType() string
	// encode appends the stored form of those of a block's grains that have a bit in stored, from the
	// lowest on. Many goroutines call it.
	encode(dst []byte, index int64, block []byte, stored uint32) []byte
	// maxEncoded bounds what it appends, in bytes.
	maxEncoded() int
	// begin, put and finish write the file, in that order. top is the header and the descriptor, the
	// header not in its final form.
	begin(top []byte) error
	put(index int64, encoded []byte) error
	finish() error
}

var errClosed = errors.New("vmdk: the writer is closed")

// newWriter is for a disk whose file has the header head, but for the fields that are the same in all.
func newWriter(o WriterOptions, head header) (*Writer, error) {
	if o.Name == "" {
		o.Name = defaultName
	}
	if o.AdapterType == "" {
		o.AdapterType = adapterTypes[0]
	}
	if o.HardwareVersion == 0 {
		o.HardwareVersion = 4
	}
	switch {
	case o.Size <= 0:
		return nil, fmt.Errorf("%s: a disk of %d bytes has no valid form", name, o.Size)
	case o.Size > maxDiskBytes:
		return nil, fmt.Errorf("%s: a disk of %d bytes is too large for this format: the most is %d (64 TiB)", name, o.Size, int64(maxDiskBytes))
	case len(o.Name) > maxExtentName || strings.ContainsFunc(o.Name, func(r rune) bool { return r < ' ' || r == '"' || r == '/' || r == '\\' || r == 0x7f }):
		return nil, fmt.Errorf(`%s: the name %q can't be written into the file: it must have at most %d bytes, and none of / \ " or control characters`, name, o.Name, maxExtentName)
	case !slices.Contains(adapterTypes, o.AdapterType):
		return nil, fmt.Errorf("%s: unknown adapter type %q: choose one of %s", name, o.AdapterType, strings.Join(adapterTypes, ", "))
	case o.HardwareVersion < 0:
		return nil, fmt.Errorf("%s: the hardware version must be positive, not %d", name, o.HardwareVersion)
	case o.Level > LevelBest:
		return nil, fmt.Errorf("%s: unknown compression level %d", name, uint8(o.Level))
	}
	size := roundUp(o.Size)
	head.capacity = uint64(size / sectorSize)
	head.grainSectors = grainSize / sectorSize
	head.gtesPerGT = gtesPerGT
	head.descriptorOffset, head.descriptorSize = descriptorAt, descriptorSectors
	head.flags |= flagNewlines
	head.newlines = newlines
	blocks := bitmap.Blocks(size)
	return &Writer{o: o, head: head, blocks: blocks, last: size - (blocks-1)*blockSize}, nil
}

// maxDiskBytes is far below what 32 MiB of grain directory, the most that is read here, describe. QEMU
// and VMware have no disks as large.
const maxDiskBytes = 64 << 40

// BlockSize returns the unit of Encode and WriteBlock in bytes.
func (w *Writer) BlockSize() int { return blockSize }

// MaxEncodedSize returns the most bytes that Encode appends.
func (w *Writer) MaxEncodedSize() int { return w.form.maxEncoded() }

// Encode appends the stored form of a block. index is its number on the disk. block has BlockSize
// bytes, of which those behind the end of the disk are zeros. Safe for concurrent use.
func (w *Writer) Encode(dst []byte, index int64, block []byte) ([]byte, error) {
	return w.EncodeSparse(dst, index, block, func(from, to int) bool { return bitmap.IsZero(block[from:to]) })
}

// EncodeSparse is Encode, but leaves out the grains for which empty says yes, which must be zeros, and
// stores the others even if they are. empty gets the bounds of a grain in block, in bytes.
func (w *Writer) EncodeSparse(dst []byte, index int64, block []byte, empty func(from, to int) bool) ([]byte, error) {
	switch {
	case index < 0 || index >= w.blocks:
		return dst, fmt.Errorf("%s: encoding block %d of %d", name, index, w.blocks)
	case len(block) != blockSize:
		return dst, fmt.Errorf("%s: encoding block %d of %d bytes", name, index, len(block))
	case index == w.blocks-1 && !bitmap.IsZero(block[w.last:]):
		return dst, fmt.Errorf("%s: block %d has data behind the end of the disk", name, index)
	}
	used := blockSize
	if index == w.blocks-1 {
		used = int(w.last)
	}
	var stored uint32
	for i := 0; i*grainSize < used; i++ {
		if !empty(i*grainSize, i*grainSize+grainSize) {
			stored |= 1 << i
		}
	}
	return w.form.encode(dst, index, block, stored), nil
}

// WriteBlock writes what Encode made of the block. Blocks come in ascending order; those left out
// are zero. After an error every call returns it.
func (w *Writer) WriteBlock(index int64, encoded []byte) error {
	if w.err == nil {
		w.err = w.writeBlock(index, encoded)
	}
	return w.err
}

func (w *Writer) writeBlock(index int64, encoded []byte) error {
	if index < w.next || index >= w.blocks {
		return fmt.Errorf("%s: block %d written where %d to %d may follow", name, index, w.next, w.blocks-1)
	}
	w.next = index + 1
	if err := w.start(encoded); err != nil {
		return err
	}
	return w.form.put(index, encoded)
}

// start begins the file, once. first is the first block in its stored form, or nothing.
func (w *Writer) start(first []byte) error {
	if w.started {
		return nil
	}
	w.started = true
	return w.form.begin(append(w.head.append(nil), w.descriptor(w.contentID(first))...))
}

// Close writes the tables and what else ends the file. It does not close what is below. After an error
// in WriteBlock it writes nothing and returns that error; a second Close does nothing and returns an
// error.
func (w *Writer) Close() error {
	if w.err != nil {
		return w.err
	}
	if w.err = w.start(nil); w.err != nil {
		return w.err
	}
	if w.err = w.form.finish(); w.err != nil {
		return w.err
	}
	w.err = errClosed
	return nil
}

// contentID is the CID. It changes whenever the content does, as far as that can be known when the file
// is begun: it depends on the size and on the first block, so that the same disk makes the same file
// anywhere. Two values have a meaning of their own (noParent, and one less): both have the highest bit.
func (w *Writer) contentID(first []byte) uint32 {
	h := sha256.New()
	io.WriteString(h, "imgferry vmdk v1")
	h.Write(binary.BigEndian.AppendUint64(nil, w.head.capacity))
	io.WriteString(h, w.form.createType()+"\x00")
	h.Write(first)
	return binary.BigEndian.Uint32(h.Sum(nil)) >> 1
}

// descriptor returns the text of the descriptor, which fits into its room.
func (w *Writer) descriptor(cid uint32) string {
	heads := uint64(255)
	if w.o.AdapterType == "ide" {
		heads = 16
	}
	const sectorsPerTrack = 63
	return fmt.Sprintf(`%s
version=1
CID=%08x
parentCID=%08x
createType="%s"

# Extent description
RW %d %s "%s"

# The Disk Data Base
#DDB

ddb.virtualHWVersion = "%d"
ddb.geometry.cylinders = "%d"
ddb.geometry.heads = "%d"
ddb.geometry.sectors = "%d"
ddb.adapterType = "%s"
ddb.toolsVersion = "2147483647"
`, descriptorMark, cid, uint32(noParent), w.form.createType(), w.head.capacity, extentSparse, w.o.Name,
		w.o.HardwareVersion, w.head.capacity/(heads*sectorsPerTrack), heads, sectorsPerTrack, w.o.AdapterType)
}

// append appends the header as parseHeader reads it.
func (h *header) append(dst []byte) []byte {
	p := make([]byte, headerLen)
	le := binary.LittleEndian
	copy(p[offMagic:], magicSparse)
	le.PutUint32(p[offVersion:], h.version)
	le.PutUint32(p[offFlags:], h.flags)
	le.PutUint64(p[offCapacity:], h.capacity)
	le.PutUint64(p[offGrainSize:], h.grainSectors)
	le.PutUint64(p[offDescriptorOffset:], h.descriptorOffset)
	le.PutUint64(p[offDescriptorSize:], h.descriptorSize)
	le.PutUint32(p[offGTEsPerGT:], h.gtesPerGT)
	le.PutUint64(p[offRGDOffset:], h.rgdOffset)
	le.PutUint64(p[offGDOffset:], h.gdOffset)
	le.PutUint64(p[offOverHead:], h.overHead)
	if h.unclean {
		p[offUncleanShutdown] = 1
	}
	copy(p[offNewlines:], h.newlines)
	le.PutUint16(p[offCompression:], h.compression)
	return append(dst, p...)
}

// entryAt returns a file offset as an entry of a grain directory or table, in sectors.
func entryAt(offset int64) (uint32, error) {
	if offset >= maxAddressed {
		return 0, fmt.Errorf("%s: the file would be longer than 2 TiB, which is all that its tables can address: choose another format", name)
	}
	return uint32(offset / sectorSize), nil
}
