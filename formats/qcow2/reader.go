// Package qcow2 reads QEMU's qcow2 images, versions 2 and 3.
//
// It reads the active disk: internal snapshots, bitmaps and reference counts are left alone. It
// doesn't write, doesn't check reference counts, and follows no name found in an image.
//
// An open image holds its L1 table (at most 32 MiB), 8 MiB of L2 tables and 4 MiB of decompressed
// clusters, whatever its size; each read under way adds at most 4 MiB of compressed bytes.
//
// Where this package and QEMU differ, it is stricter: reserved bits that are set, and tables or
// clusters beyond the end of the file, are errors here, while QEMU ignores the ones and reads zeros
// for the others. A virtual size that is not a multiple of 512 is kept; QEMU rounds it down.
package qcow2

import (
	"context"
	"encoding/binary"

	"imgferry/formats"
	"imgferry/formats/mapped"
)

const (
	// maxSlice is how many bytes of an L2 table are read and cached at once: a table of 2 MiB would
	// be much to read for one cluster.
	maxSlice = 64 << 10
	// l2CacheBytes of tables describe 64 GiB of disk at the usual cluster size of 64 KiB. Eight
	// readers that each walk their own part need 8 slices.
	l2CacheBytes   = 8 << 20
	l2CacheEntries = 4096 // slices of 512 bytes cost more in bookkeeping than in bytes
	// decodedCacheBytes holds clusters for readers that read less than a cluster at a time: two of
	// the largest size.
	decodedCacheBytes   = 4 << 20
	decodedCacheEntries = 64
	// batchBytes bounds the neighbouring compressed clusters that are read in one go, in bytes of
	// file; the gaps between them that are read along are at most batchGap.
	batchBytes = 1 << 20
	batchGap   = 64 << 10
)

// table is the mapping of an open qcow2 file.
type table struct {
	file     *mapped.Reader
	fileSize int64 // bytes
	header
	l1      []byte        // as in the file; only the entries that the virtual size needs
	l2      *mapped.Cache // slices of L2 tables by their offset in the file
	decoded *mapped.Cache // decompressed clusters by their L2 entry
}

func open(ctx context.Context, src formats.Source, res formats.Resolver) (formats.Image, error) {
	f, err := readFirst(ctx, src)
	if err != nil {
		return nil, err
	}
	if err := f.check(src.Size(), res); err != nil {
		return nil, err
	}
	m := &table{fileSize: src.Size(), header: f.header}
	if err := m.readL1(src); err != nil {
		return nil, err
	}
	m.file = mapped.NewReader(ctx, name, src)
	m.l2 = mapped.NewCache(int(min(l2CacheBytes/m.sliceSize(), l2CacheEntries)), m.loadSlice)
	m.decoded = mapped.NewCache(int(min(decodedCacheBytes/m.clusterSize(), decodedCacheEntries)), m.loadDecoded)
	return mapped.New(mapped.Config{Reader: m.file, Size: int64(m.size), Table: m}), nil
}

// readL1 reads the L1 table, which checkL1 has found to lie in the file.
func (m *table) readL1(src formats.Source) error {
	m.l1 = make([]byte, m.l1Needed()*8)
	if err := formats.ReadFull(src, m.l1, int64(m.l1Offset)); err != nil {
		return formats.ReadFailed(name, int64(m.l1Offset), "the L1 table", err)
	}
	// Each L2 table has a cluster of its own. If the file has not that many, tables are shared, and
	// a few bytes of file could keep a walk over them busy for hours.
	var tables int64
	for i := 0; i < len(m.l1); i += 8 {
		if binary.BigEndian.Uint64(m.l1[i:])&entryOffset != 0 {
			tables++
		}
	}
	if tables > m.fileSize>>m.clusterBits {
		return formats.Corrupt(name, int64(m.l1Offset), "the L1 table has %d L2 tables, the file has room for %d", tables, m.fileSize>>m.clusterBits)
	}
	return nil
}
