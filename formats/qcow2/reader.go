// Package qcow2 reads QEMU's qcow2 images, versions 2 and 3.
//
// It reads the active disk and internal snapshots, and checks the structure of an image: tables and
// reference counts. It follows a name found in an image only through a Resolver: backing files and
// external data files. Bitmaps are left alone, but for the check; encrypted disks are refused. It
// doesn't write, and doesn't repair.
//
// An open image holds its L1 table (at most 32 MiB), 8 MiB of L2 tables and 4 MiB of decompressed
// clusters, whatever its size; each read under way adds at most 4 MiB of compressed bytes. A check
// holds 5 bytes for each of up to 16 Mi clusters, which is 1 TiB at the usual cluster size, and 16 for
// each L2 table; it goes several times over the tables of images with more, and never holds more than
// 300 MiB.
//
// Where this package and QEMU differ, it is stricter: reserved bits that are set, and tables or
// clusters beyond the end of the file, are errors here, while QEMU ignores the ones and reads zeros
// for the others. And it keeps a virtual size that is not a multiple of 512, which QEMU rounds down;
// reads a snapshot with the size that the disk had when it was taken, where QEMU shows it with
// today's; reads the active disk even if the snapshot table is broken; has no HostOffset for
// extents that are zero, even where clusters are kept for them; and takes every hole of a file for
// zeros, which QEMU does for preallocated images only.
//
// Images that are marked as dirty or corrupt are read, as QEMU reads them where it doesn't write: the
// one mark speaks of reference counts, which reading doesn't need, and the other was set to prevent
// further writes.
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
	// dataSize is the size in bytes of the file that holds the plain clusters, and dataIndex its
	// number for mapped.Run.File: the image itself, or the external data file.
	dataSize  int64
	dataIndex int
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
	if err := f.check(src.Size()); err != nil {
		return nil, err
	}
	return f.open(ctx, src, res)
}

// openSnapshot opens the image as if the snapshot were the active disk.
func openSnapshot(ctx context.Context, src formats.Source, res formats.Resolver, wanted string) (formats.Image, error) {
	f, err := readFirst(ctx, src)
	if err != nil {
		return nil, err
	}
	if err := f.checkNeeds(); err != nil {
		return nil, err
	}
	if f.snapshots > 0 && f.incompatible&featureDataFile != 0 {
		return nil, formats.Corrupt(name, offSnapshots, "an image with an external data file has snapshots")
	}
	list, _, err := f.readSnapshots(ctx, src)
	if err != nil {
		return nil, err
	}
	s, err := findSnapshot(list, wanted)
	if err != nil {
		return nil, err
	}
	if s.l1.size != uint64(s.VirtualSize) {
		return nil, formats.Corrupt(name, s.l1.at, "the snapshot's virtual size %d is beyond 63 bits", s.l1.size)
	}
	if err := f.checkL1(s.l1, src.Size()); err != nil {
		return nil, err
	}
	f.size, f.l1Offset, f.l1Entries = s.l1.size, s.l1.offset, s.l1.entries
	return f.open(ctx, src, res)
}

// open opens what check has found to be good.
func (f *firstCluster) open(ctx context.Context, src formats.Source, res formats.Resolver) (formats.Image, error) {
	m := &table{fileSize: src.Size(), dataSize: src.Size(), header: f.header}
	if err := m.readL1(ctx, src); err != nil {
		return nil, err
	}
	others, err := f.openOthers(ctx, res)
	if err != nil {
		return nil, err
	}
	m.file = mapped.NewReader(ctx, name, src)
	m.l2 = mapped.NewCache(int(min(l2CacheBytes/m.sliceSize(), l2CacheEntries)), m.loadSlice)
	m.decoded = mapped.NewCache(int(min(decodedCacheBytes/m.clusterSize(), decodedCacheEntries)), m.loadDecoded)
	c := mapped.Config{Reader: m.file, Size: int64(m.size), Table: m, Unit: m.clusterSize(), Below: others.below, BelowName: f.backing, Holes: true}
	if others.data != nil {
		c.Files = []mapped.File{{Name: f.dataFile, Reader: m.file.Sibling(others.data)}}
		m.dataSize, m.dataIndex = others.data.Size(), 1
	}
	return mapped.New(c), nil
}

// others are the other files that an image needs, or nil.
type others struct {
	data  formats.Source
	below formats.Image
}

// openOthers opens the files named in the image, all or none.
func (f *firstCluster) openOthers(ctx context.Context, res formats.Resolver) (o others, err error) {
	for _, r := range f.refs() {
		if res == nil {
			err = formats.NotAllowed(name, -1, "the disk needs the %s %q", r.Kind, r.Name)
		} else if r.Kind == formats.DataFile {
			o.data, _, err = res.Resolve(ctx, r)
		} else {
			o.below, err = res.Open(ctx, r)
		}
		if err != nil {
			if o.data != nil {
				o.data.Close()
			}
			return others{}, err
		}
	}
	return o, nil
}

// readL1 reads the L1 table, which checkL1 has found to lie in the file.
func (m *table) readL1(ctx context.Context, src formats.Source) error {
	m.l1 = make([]byte, m.l1Needed(m.size)*8)
	if err := formats.ReadAt(ctx, name, src, m.l1, int64(m.l1Offset), "the L1 table"); err != nil {
		return err
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
	return m.dropEmpty(formats.NewTables(ctx, name, src))
}

// dropEmpty removes the L2 tables that lie in holes of the file: all their entries are zero, as if
// there were no table. Others are bounded by what the file holds.
func (m *table) dropEmpty(tables *formats.Tables) error {
	for i := 0; i < len(m.l1); i += 8 {
		e := binary.BigEndian.Uint64(m.l1[i:])
		off := int64(e & entryOffset)
		if off == 0 || e&l1Reserved != 0 || off&(m.clusterSize()-1) != 0 || off > m.fileSize-m.clusterSize() {
			continue // nothing, or for Map to refuse
		}
		empty, err := tables.Add(off, m.clusterSize(), int64(m.l1Offset)+int64(i))
		if err != nil {
			return err
		}
		if empty {
			clear(m.l1[i:][:8])
		}
	}
	return nil
}
