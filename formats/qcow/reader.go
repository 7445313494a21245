// Package qcow reads version 1 of QEMU's qcow images; package qcow2 reads the later ones.
//
// It doesn't write, and doesn't decrypt. A backing file is opened by the resolver that Open is
// given, or not at all.
//
// An open image holds its L1 table (at most 32 MiB), 8 MiB of L2 tables and 4 MiB of decompressed
// clusters, whatever its size; each read under way adds at most 1 MiB of compressed bytes. Check
// holds the L1 table and 64 MiB of bits.
//
// Where this package and QEMU differ, it is stricter: what points past the end of the file, tables
// that don't begin with a sector, and compressed clusters that go on after their end are errors
// here, while QEMU reads zeros, reads on, and drops the rest. Disks whose L1 table is larger than 32
// MiB are refused. A virtual size that is not a multiple of 512 is kept; QEMU rounds it down.
// Compressed data may refer back further than the 4 KiB that QEMU's writer and reader keep to.
package qcow

import (
	"context"
	"encoding/binary"

	"imgferry/formats"
	"imgferry/formats/mapped"
)

const (
	// l2CacheBytes of tables describe 4 GiB of disk at the usual cluster size of 4 KiB.
	l2CacheBytes   = 8 << 20
	l2CacheEntries = 4096 // tables of 512 bytes cost more in bookkeeping than in bytes
	// decodedCacheBytes holds clusters for readers that read less than a cluster at a time.
	decodedCacheBytes   = 4 << 20
	decodedCacheEntries = 64
	// batchBytes bounds the neighbouring compressed clusters that are read in one go, in bytes of
	// file; the gaps between them that are read along are at most batchGap.
	batchBytes = 1 << 20
	batchGap   = 64 << 10
)

// table is the mapping of an open qcow file.
type table struct {
	file     *mapped.Reader
	fileSize int64 // bytes
	header
	l1      []byte        // as in the file
	l2      *mapped.Cache // L2 tables by their offset in the file
	decoded *mapped.Cache // decompressed clusters by their L2 entry
}

func open(ctx context.Context, src formats.Source, res formats.Resolver) (formats.Image, error) {
	f, err := readFront(ctx, src)
	if err != nil {
		return nil, err
	}
	l1, err := f.readL1(ctx, src)
	if err != nil {
		return nil, err
	}
	if err := f.dropEmpty(l1, src.Size(), formats.NewTables(ctx, name, src)); err != nil {
		return nil, err
	}
	below, err := f.openBacking(ctx, res)
	if err != nil {
		return nil, err
	}
	t := &table{file: mapped.NewReader(ctx, name, src), fileSize: src.Size(), header: f.header, l1: l1}
	t.l2 = mapped.NewCache(int(min(l2CacheBytes/t.l2Bytes(), l2CacheEntries)), t.loadL2)
	t.decoded = mapped.NewCache(int(min(decodedCacheBytes/t.cluster(), decodedCacheEntries)), t.loadDecoded)
	return mapped.New(mapped.Config{Reader: t.file, Size: int64(t.size), Table: t, Unit: t.cluster(), Below: below, BelowName: f.backing}), nil
}

// openBacking returns the disk below, or nil if there is none.
func (f *front) openBacking(ctx context.Context, res formats.Resolver) (formats.Image, error) {
	refs := f.refs()
	if len(refs) == 0 {
		return nil, nil
	}
	if res == nil {
		return nil, formats.NotAllowed(name, int64(f.backingOffset), "the disk needs the %s %q", refs[0].Kind, refs[0].Name)
	}
	return res.Open(ctx, refs[0])
}

// readL1 reads the L1 table, which check has found to lie in the file.
func (h *header) readL1(ctx context.Context, src formats.Source) ([]byte, error) {
	l1 := make([]byte, h.l1Bytes())
	if err := formats.ReadAt(ctx, name, src, l1, int64(h.l1Offset), "the L1 table"); err != nil {
		return nil, err
	}
	// Each L2 table has a place of its own. If the file has not room for that many, tables are
	// shared, and a few bytes of file could keep a walk over them busy for hours.
	var tables int64
	for i := 0; i < len(l1); i += entrySize {
		if binary.BigEndian.Uint64(l1[i:]) != entryHole {
			tables++
		}
	}
	if room := src.Size() / h.l2Bytes(); tables > room {
		return nil, formats.Corrupt(name, int64(h.l1Offset), "the L1 table has %d L2 tables, the file has room for %d", tables, room)
	}
	return l1, nil
}

// dropEmpty removes from l1 the L2 tables that lie in holes of the file: all their entries are holes,
// as if there were no table. Others are bounded by what the file holds.
func (h *header) dropEmpty(l1 []byte, fileSize int64, tables *formats.Tables) error {
	for i := 0; i < len(l1); i += entrySize {
		l2 := binary.BigEndian.Uint64(l1[i:])
		if l2 == entryHole || h.badL2(l2, fileSize) != "" {
			continue // nothing, or for Map to refuse
		}
		empty, err := tables.Add(int64(l2), h.l2Bytes(), int64(h.l1Offset)+int64(i))
		if err != nil {
			return err
		}
		if empty {
			clear(l1[i:][:entrySize])
		}
	}
	return nil
}

// loadL2 reads an L2 table; it is the load function of the cache t.l2.
func (t *table) loadL2(off int64) ([]byte, error) {
	p := make([]byte, t.l2Bytes())
	return p, t.file.Read(p, off, "an L2 table")
}

// Map returns the run that starts at off.
func (t *table) Map(off, limit int64) (mapped.Run, error) {
	index := off >> t.l2CoverBits()
	l2 := binary.BigEndian.Uint64(t.l1[index*entrySize:])
	if l2 == entryHole {
		return t.mapHole(off, limit, index), nil
	}
	if what := t.badL2(l2, t.fileSize); what != "" {
		return mapped.Run{}, formats.Corrupt(name, int64(t.l1Offset)+index*entrySize, "the offset %#x in L1 entry %d %s", l2, index, what)
	}
	entries, err := t.l2.Get(int64(l2))
	if err != nil {
		return mapped.Run{}, err
	}
	inTable := off >> t.clusterBits & (1<<t.l2Bits - 1) * entrySize // bytes
	return t.mapClusters(off, limit, entries[inTable:], int64(l2)+inTable)
}

// mapHole returns the run of L1 entries, from index on, that have no L2 table.
func (t *table) mapHole(off, limit, index int64) mapped.Run {
	cover := int64(1) << t.l2CoverBits()
	length := cover - off&(cover-1)
	for i := (index + 1) * entrySize; i < int64(len(t.l1)) && length < limit; i += entrySize {
		if binary.BigEndian.Uint64(t.l1[i:]) != entryHole {
			break
		}
		length += min(cover, limit-length)
	}
	return mapped.Run{Kind: mapped.Hole, Length: min(length, limit)}
}

// mapClusters returns the run at the start of entries, which lie at offset at of the file.
func (t *table) mapClusters(off, limit int64, entries []byte, at int64) (mapped.Run, error) {
	guest := off &^ (t.cluster() - 1)
	first := t.parseL2Entry(binary.BigEndian.Uint64(entries))
	if what := t.bad(first, guest, t.fileSize); what != "" {
		return mapped.Run{}, formats.Corrupt(name, at, "the L2 entry for disk offset %d %s", guest, what)
	}
	n := int64(1) // clusters
	for ; n*entrySize < int64(len(entries)) && guest+n*t.cluster()-off < limit; n++ {
		// A fault in a later entry is for the read that comes to it.
		c := t.parseL2Entry(binary.BigEndian.Uint64(entries[n*entrySize:]))
		if c.kind != first.kind || c.kind == mapped.Data && c.host != first.host+n*t.cluster() ||
			t.bad(c, guest+n*t.cluster(), t.fileSize) != "" {
			break
		}
	}
	r := mapped.Run{Kind: first.kind, Length: min(guest+n*t.cluster()-off, limit)}
	switch r.Kind {
	case mapped.Data:
		r.Host = first.host + off - guest
	case mapped.Encoded:
		r.Entries = entries[:n*entrySize]
	}
	return r, nil
}
