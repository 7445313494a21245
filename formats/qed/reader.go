// Package qed reads QEMU's QED images: qcow2's short-lived rival, without compression, encryption
// and snapshots.
//
// It doesn't write, and repairs nothing: an image that was not closed properly is read as it is. A
// backing file is opened by the resolver that Open is given, or not at all.
//
// An open image holds the entries of its L1 table that the virtual size needs (at most 16 MiB; one
// page for most disks) and 8 MiB of L2 tables, whatever its size. Check holds one bit for each
// cluster of the file, at most 64 MiB, and refuses larger files.
//
// Where this package and QEMU differ: a header_size of 0 is an error here, and tables of one cluster,
// which the specification allows and QEMU writes but can't open, are read.
package qed

import (
	"context"
	"encoding/binary"
	"errors"

	"imgferry/formats"
	"imgferry/formats/mapped"
)

const (
	// maxSlice is how many bytes of a table are read and cached at once: a table may have 1 GiB.
	maxSlice = 64 << 10
	// l2CacheBytes of tables describe 64 GiB of disk at the usual cluster size of 64 KiB.
	l2CacheBytes = 8 << 20
)

// table is the mapping of an open QED file.
type table struct {
	file     *mapped.Reader
	fileSize int64 // bytes
	header
	l1 []byte        // as in the file; only the entries that the virtual size needs
	l2 *mapped.Cache // slices of L2 tables by their offset in the file
}

func open(ctx context.Context, src formats.Source, res formats.Resolver) (formats.Image, error) {
	f, err := readFront(ctx, src)
	if err != nil {
		return nil, err
	}
	t := &table{fileSize: src.Size(), header: f.header}
	if err := t.readL1(ctx, src); err != nil {
		return nil, err
	}
	below, err := f.openBacking(ctx, res)
	if err != nil {
		return nil, err
	}
	t.file = mapped.NewReader(ctx, name, src)
	t.l2 = mapped.NewCache(int(l2CacheBytes/t.sliceSize()), t.loadSlice)
	return mapped.New(mapped.Config{Reader: t.file, Size: int64(t.imageSize), Table: t, Below: below, BelowName: f.backing}), nil
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
func (t *table) readL1(ctx context.Context, src formats.Source) error {
	t.l1 = make([]byte, t.l1Needed()*entrySize)
	if err := formats.ReadAt(ctx, name, src, t.l1, int64(t.l1Offset), "the L1 table"); err != nil {
		return err
	}
	// Each L2 table has clusters of its own. If the file has not that many, tables are shared, and a
	// few bytes of file could keep a walk over them busy for hours.
	var tables int64
	for i := 0; i < len(t.l1); i += entrySize {
		if binary.LittleEndian.Uint64(t.l1[i:]) != entryHole {
			tables++
		}
	}
	if room := t.fileSize / t.tableBytes(); tables > room {
		return formats.Corrupt(name, int64(t.l1Offset), "the L1 table has %d L2 tables, the file has room for %d", tables, room)
	}
	return t.dropEmpty(formats.NewTables(ctx, name, src))
}

// dropEmpty removes the L2 tables that lie in holes of the file: all their entries are holes, as if
// there were no table. Others are bounded by what the file holds.
func (t *table) dropEmpty(tables *formats.Tables) error {
	for i := 0; i < len(t.l1); i += entrySize {
		l2 := binary.LittleEndian.Uint64(t.l1[i:])
		if l2 == entryHole || !t.inFile(l2, t.tableBytes(), t.fileSize) {
			continue // nothing, or for Map to refuse
		}
		empty, err := tables.Add(int64(l2), t.tableBytes(), int64(t.l1Offset)+int64(i))
		if err != nil {
			return err
		}
		if empty {
			clear(t.l1[i:][:entrySize])
		}
	}
	return nil
}

// sliceSize is how many bytes of an L2 table are loaded at once.
func (t *table) sliceSize() int64 { return min(t.tableBytes(), maxSlice) }

// loadSlice reads a piece of an L2 table; it is the load function of the cache t.l2.
func (t *table) loadSlice(off int64) ([]byte, error) {
	p := make([]byte, t.sliceSize())
	return p, t.file.Read(p, off, "an L2 table")
}

// Map returns the run that starts at off.
func (t *table) Map(off, limit int64) (mapped.Run, error) {
	index := off >> t.l2CoverBits()
	l2 := binary.LittleEndian.Uint64(t.l1[index*entrySize:])
	if l2 == entryHole {
		return t.mapHole(off, limit, index), nil
	}
	if !t.inFile(l2, t.tableBytes(), t.fileSize) {
		return mapped.Run{}, formats.Corrupt(name, int64(t.l1Offset)+index*entrySize,
			"L1 entry %d: the L2 table at %#x does not lie in the file's clusters", index, l2)
	}
	inTable := off >> t.clusterBits() & (1<<t.entryBits() - 1) * entrySize // bytes
	start := inTable &^ (t.sliceSize() - 1)
	slice, err := t.l2.Get(int64(l2) + start)
	if err != nil {
		return mapped.Run{}, err
	}
	return t.mapClusters(off, limit, slice[inTable-start:], int64(l2)+inTable)
}

// mapHole returns the run of L1 entries, from index on, that have no L2 table.
func (t *table) mapHole(off, limit, index int64) mapped.Run {
	cover := int64(1) << t.l2CoverBits()
	length := cover - off&(cover-1)
	for i := (index + 1) * entrySize; i < int64(len(t.l1)) && length < limit; i += entrySize {
		if binary.LittleEndian.Uint64(t.l1[i:]) != entryHole {
			break
		}
		length += min(cover, limit-length)
	}
	return mapped.Run{Kind: mapped.Hole, Length: min(length, limit)}
}

// mapClusters returns the run at the start of entries, which lie at offset at of the file.
func (t *table) mapClusters(off, limit int64, entries []byte, at int64) (mapped.Run, error) {
	first := binary.LittleEndian.Uint64(entries)
	var kind mapped.Kind
	var step uint64 // from the entry of one cluster to that of the next, in one run
	switch {
	case first == entryHole:
		kind = mapped.Hole
	case first == entryZero:
		kind = mapped.Zero
	case t.inFile(first, t.cluster(), t.fileSize):
		kind, step = mapped.Data, uint64(t.clusterSize)
	default:
		return mapped.Run{}, formats.Corrupt(name, at, "the L2 entry for disk offset %d: %#x is not in the file's clusters", off&^(t.cluster()-1), first)
	}
	in := off & (t.cluster() - 1)
	length := t.cluster() - in
	for i, want := entrySize, first+step; i < len(entries) && length < limit; i, want = i+entrySize, want+step {
		// A fault in a later entry is for the read that comes to it.
		if binary.LittleEndian.Uint64(entries[i:]) != want || kind == mapped.Data && !t.inFile(want, t.cluster(), t.fileSize) {
			break
		}
		length += t.cluster()
	}
	r := mapped.Run{Kind: kind, Length: min(length, limit)}
	if kind == mapped.Data {
		r.Host = int64(first) + in
	}
	return r, nil
}

// Decode is never called: nothing is encoded.
func (t *table) Decode([]byte, int64, mapped.Run) error { return errors.ErrUnsupported }
