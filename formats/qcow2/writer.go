package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"imgferry/bitmap"
)

// blockSize is the unit of Encode and WriteBlock in bytes.
const blockSize = bitmap.BlockSize

// defaultClusterSize is QEMU's, in bytes.
const defaultClusterSize = 64 << 10

// WriterOptions say what a Writer makes. With the disk's content they decide every byte of the file.
type WriterOptions struct {
	// Size is the size of the disk in bytes. It is rounded up to a multiple of 512.
	Size int64
	// ClusterSize is in bytes: a power of two from 512 to 2 MiB. 0 stands for 64 KiB.
	ClusterSize int
	// Compression is none unless said otherwise.
	Compression Compression
	// Level is for Zlib and Zstd.
	Level Level
}

// Writer writes a qcow2 file of version 3, without backing file and snapshots, in the order of the
// disk. Any number of goroutines may Encode; WriteBlock and Close belong to one.
//
// Clusters of zeros are not stored, or others if EncodeSparse says so. Compressed clusters follow each other byte by byte, as QEMU packs
// them; those that don't get smaller are stored as they are. The file is no image before Close has
// written the header. Memory is two clusters, one of L2 entries and one of reference counts, or
// 32 KiB if that is more, and the state of an encoder for each goroutine in Encode.
type Writer struct {
	file   layouter
	enc    encoder
	head   header
	blocks int64 // of the disk
	last   int64 // bytes of the disk in the last block

	next int64 // the least block that WriteBlock takes
	err  error // sticky
}

var errClosed = errors.New("qcow2: the writer is closed")

// CheckClusterSize refuses clusters of n bytes that QEMU would refuse.
func CheckClusterSize(n int64) error {
	if n < 1<<minClusterBits || n > 1<<maxClusterBits || n&(n-1) != 0 {
		return fmt.Errorf("the cluster size must be a power of two from 512 to 2097152 bytes, not %d", n)
	}
	return nil
}

// NewWriter returns a Writer to a new file, to which it writes nothing yet. What it leaves out must
// read as zeros. It refuses options that QEMU would refuse.
func NewWriter(to io.WriterAt, o WriterOptions) (*Writer, error) {
	if o.ClusterSize == 0 {
		o.ClusterSize = defaultClusterSize
	}
	if o.Size < 0 || o.Size > maxWriterSize {
		return nil, fmt.Errorf("%s: a disk can have 0 to %d bytes, not %d", name, int64(maxWriterSize), o.Size)
	}
	if err := CheckClusterSize(int64(o.ClusterSize)); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := o.Compression.check(o.Level); err != nil {
		return nil, err
	}
	size := (o.Size + 511) &^ 511
	p, err := planFor(size, int64(o.ClusterSize))
	if err != nil {
		return nil, err
	}
	blocks := bitmap.Blocks(size)
	return &Writer{
		file:   newLayouter(to, p),
		enc:    encoder{codec: o.Compression, level: o.Level, clusterSize: o.ClusterSize},
		head:   p.header(size, o.Compression),
		blocks: blocks,
		last:   size - (blocks-1)*blockSize,
	}, nil
}

// BlockSize returns the unit of Encode and WriteBlock in bytes.
func (w *Writer) BlockSize() int { return blockSize }

// clustersPerBlock is how many clusters of the disk one block has.
func (w *Writer) clustersPerBlock() int { return blockSize / w.enc.clusterSize }

// lengthBytes is the size of an entry of the table that an encoded block begins with: how many bytes
// of the cluster are stored, the cluster size if it is not compressed, 0 if it is not stored. The
// compressed clusters follow, then the others, both in the order of the disk.
const lengthBytes = 4

// MaxEncodedSize returns the most bytes that Encode appends, and what it needs to try them.
func (w *Writer) MaxEncodedSize() int {
	return w.clustersPerBlock()*lengthBytes + blockSize + w.enc.slack()
}

// Encode appends the stored form of a block. index is its number on the disk. block has BlockSize
// bytes, of which those behind the end of the disk are zeros. Safe for concurrent use.
func (w *Writer) Encode(dst []byte, index int64, block []byte) ([]byte, error) {
	return w.EncodeSparse(dst, index, block, func(from, to int) bool { return bitmap.IsZero(block[from:to]) })
}

// EncodeSparse is Encode, but leaves out the clusters for which empty says yes, which must be zeros, and
// stores the others even if they are. empty gets the bounds of a cluster in block, in bytes.
func (w *Writer) EncodeSparse(dst []byte, index int64, block []byte, empty func(from, to int) bool) ([]byte, error) {
	switch {
	case index < 0 || index >= w.blocks:
		return dst, fmt.Errorf("%s: encoding block %d of %d", name, index, w.blocks)
	case len(block) != blockSize:
		return dst, fmt.Errorf("%s: encoding block %d of %d bytes", name, index, len(block))
	case index == w.blocks-1 && !bitmap.IsZero(block[w.last:]):
		return dst, fmt.Errorf("%s: block %d has data behind the end of the disk", name, index)
	}
	used := len(block)
	if index == w.blocks-1 {
		used = int(w.last)
	}
	return w.enc.appendBlock(dst, block, used, empty), nil
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
	first := index * int64(w.clustersPerBlock())
	lengths, packed, plain, err := w.split(encoded)
	if err != nil {
		return err
	}
	if err := w.file.open(first); err != nil {
		return err
	}
	if err := w.file.putPacked(first, lengths, packed); err != nil {
		return err
	}
	return w.file.putPlain(first, lengths, plain)
}

// split takes an encoded block apart: the lengths, and the clusters that are compressed and that are
// not. It refuses what Encode can't have made.
func (w *Writer) split(encoded []byte) (lengths, packed, plain []byte, err error) {
	n := w.clustersPerBlock() * lengthBytes
	if len(encoded) < n {
		return nil, nil, nil, fmt.Errorf("%s: an encoded block of %d bytes is too short", name, len(encoded))
	}
	lengths = encoded[:n]
	var small, whole int64
	for i := 0; i < n; i += lengthBytes {
		switch l := int64(binary.LittleEndian.Uint32(lengths[i:])); {
		case l < w.file.clusterSize:
			small += l
		case l == w.file.clusterSize:
			whole += l
		default:
			return nil, nil, nil, fmt.Errorf("%s: an encoded block has a cluster of %d bytes", name, l)
		}
	}
	if small+whole != int64(len(encoded)-n) {
		return nil, nil, nil, fmt.Errorf("%s: an encoded block has %d bytes, its clusters %d", name, len(encoded), small+whole)
	}
	return lengths, encoded[n:][:small], encoded[int64(n)+small:], nil
}

// Close writes what remains of the tables, and the header. It does not close the file. After an
// error in WriteBlock it writes nothing and returns that error; a second Close does nothing and
// returns an error.
func (w *Writer) Close() error {
	if w.err != nil {
		return w.err
	}
	if w.err = w.file.finish(); w.err != nil {
		return w.err
	}
	if w.err = w.file.write(w.head.append(nil), 0); w.err != nil {
		return w.err
	}
	w.err = errClosed
	return nil
}

// append appends the header as parseHeader reads it.
func (h header) append(dst []byte) []byte {
	be := binary.BigEndian
	p := make([]byte, max(int(h.headerLen), headerLenV2))
	be.PutUint32(p[offMagic:], magic)
	be.PutUint32(p[offVersion:], h.version)
	be.PutUint64(p[offBackingOffset:], h.backingOffset)
	be.PutUint32(p[offBackingSize:], h.backingSize)
	be.PutUint32(p[offClusterBits:], h.clusterBits)
	be.PutUint64(p[offSize:], h.size)
	be.PutUint32(p[offCryptMethod:], h.cryptMethod)
	be.PutUint32(p[offL1Entries:], h.l1Entries)
	be.PutUint64(p[offL1Offset:], h.l1Offset)
	be.PutUint64(p[offRefcountTable:], h.refTableOffset)
	be.PutUint32(p[offRefcountClusters:], h.refClusters)
	be.PutUint32(p[offSnapshots:], h.snapshots)
	be.PutUint64(p[offSnapshotTable:], h.snapshotTable)
	if h.version >= 3 {
		be.PutUint64(p[offIncompatible:], h.incompatible)
		be.PutUint64(p[offCompatible:], h.compatible)
		be.PutUint64(p[offAutoclear:], h.autoclear)
		be.PutUint32(p[offRefcountOrder:], h.refcountOrder)
		be.PutUint32(p[offHeaderLen:], h.headerLen)
		if h.headerLen > offCompressionType {
			p[offCompressionType] = h.compressionTyp
		}
	}
	return append(dst, p...)
}
