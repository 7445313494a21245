package vmdk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"

	"imgferry/formats"
	"imgferry/formats/mapped"
)

const (
	// tableCacheBytes of grain tables describe 64 GiB of disk at the usual sizes, shared among the
	// disk's extents.
	tableCacheBytes   = 4 << 20
	tableCacheEntries = 4096 // small tables cost more in bookkeeping than in bytes
	// decodedCacheBytes holds grains for readers that read less than a grain at a time: two of the
	// largest size.
	decodedCacheBytes   = 4 << 20
	decodedCacheEntries = 64
)

// sparse is the table of a hosted sparse extent: a grain directory of grain tables of grains.
type sparse struct {
	header
	length   int64 // bytes of disk, at most the capacity
	fileSize int64
	dir      directory
	number   int            // of mapped.Config.Files; 0: the image's own
	file     *mapped.Reader // set when the image is made
	tables   *mapped.Cache  // grain tables by their number
	decoded  *mapped.Cache  // decompressed grains by their offset in the extent
}

// openSparse opens the extent whose header h was checked. It is one of several that share caches'
// bytes.
func openSparse(ctx context.Context, src formats.Source, h header, several int) (*sparse, error) {
	dir, err := openDirectory(ctx, src, h)
	if err != nil {
		return nil, err
	}
	// All grains of an empty table are not stored, as if there were no table.
	if err := dir.bound(ctx, src, h, func(i int64) { clear(dir.entry(i)) }); err != nil {
		return nil, err
	}
	s := &sparse{header: h, length: h.bytes(), fileSize: src.Size(), dir: dir}
	cached := min(tableCacheBytes/h.tableBytes(), tableCacheEntries) / int64(several)
	s.tables = mapped.NewCache(int(max(cached, 1)), s.loadTable)
	if s.packed() {
		s.decoded = mapped.NewCache(int(min(decodedCacheBytes/h.grainBytes(), decodedCacheEntries)), s.loadDecoded)
	}
	return s, nil
}

// packed says that the grains are compressed.
func (h *header) packed() bool { return h.flags&flagCompressed != 0 }

// directory is a grain directory.
type directory struct {
	entries []byte // as in the file; 0: there is no table
	header  *header
	// rebuilt are the tables made from markers; an entry is then a number in it, from 1.
	rebuilt [][]byte
}

// entry returns the bytes of entry i.
func (d directory) entry(i int64) []byte {
	size := d.header.entrySize()
	return d.entries[i*size:][:size]
}

// at returns the sector at which table i begins, or 0.
func (d directory) at(i int64) int64 {
	p := d.entry(i)
	if d.header.kind != seSparseExtent {
		return int64(binary.LittleEndian.Uint32(p))
	}
	e := binary.LittleEndian.Uint64(p)
	if e == 0 {
		return 0
	}
	return int64(d.header.tablesAt) + int64(uint32(e))*seTableSectors
}

func (d directory) count() int64 {
	if d.entries == nil {
		return 0
	}
	return int64(len(d.entries)) / d.header.entrySize()
}

// bound refuses more tables than the file holds data for, and calls empty for the entries of those
// that lie in holes of the file.
func (d directory) bound(ctx context.Context, src formats.Source, h header, empty func(i int64)) error {
	if d.rebuilt != nil {
		return nil
	}
	tables := formats.NewTables(ctx, name, src)
	for i := range d.count() {
		e := d.at(i)
		if e == 0 {
			continue
		}
		hole, err := tables.Add(e*sectorSize, h.tableBytes(), -1)
		if err != nil {
			return err
		}
		if hole {
			empty(i)
		}
	}
	return nil
}

// openDirectory returns the first grain directory that is usable: the primary one, the redundant
// one, one rebuilt from the markers of a stream. A failed read is no reason to try the next.
func openDirectory(ctx context.Context, src formats.Source, h header) (directory, error) {
	dir, first := readDirectory(ctx, src, h, h.gdOffset, h.directoryField())
	if !errors.Is(first, formats.ErrCorrupt) {
		return dir, first
	}
	if h.flags&flagRedundant != 0 {
		dir, err := readDirectory(ctx, src, h, h.rgdOffset, offRGDOffset)
		if !errors.Is(err, formats.ErrCorrupt) {
			return dir, err
		}
	}
	if h.packed() {
		dir, err := rebuildDirectory(ctx, src, h)
		if !errors.Is(err, formats.ErrCorrupt) {
			return dir, err
		}
		var why *formats.Error
		if errors.As(err, &why) {
			return dir, formats.Corrupt(name, why.Offset, "the grain directory is lost, and so is the stream it could be made of: %s", why.What)
		}
	}
	return dir, first
}

// readDirectory reads the grain directory at the given sector, which the header's field at says.
// Its tables must lie in the file.
func readDirectory(ctx context.Context, src formats.Source, h header, offset uint64, at int64) (directory, error) {
	fileSectors := uint64(src.Size()) / sectorSize
	n := h.tables() * uint64(h.entrySize())
	switch {
	case offset == gdAtEnd && h.kind == hostedExtent:
		return directory{}, formats.Corrupt(name, at, "the grain directory is at the end, and no footer says where")
	case offset == 0:
		return directory{}, formats.Corrupt(name, at, "there is no grain directory")
	case offset > fileSectors || n > uint64(src.Size())-offset*sectorSize:
		return directory{}, formats.Corrupt(name, at, "the grain directory at sector %d reaches past the end of the file", offset)
	}
	base := int64(offset) * sectorSize
	p, err := readAt(ctx, src, base, int64(n), "the grain directory")
	if err != nil {
		return directory{}, err
	}
	dir := directory{entries: p, header: &h}
	// Each table has sectors of its own. If the file has not that many, tables are shared, and a few
	// bytes of file could keep a walk over them busy for hours.
	var tables int64
	for i := range dir.count() {
		e := dir.at(i)
		if e == 0 {
			continue
		}
		tables++
		if h.kind == seSparseExtent && binary.LittleEndian.Uint32(dir.entry(i)[4:]) != seTableThere {
			return dir, formats.Corrupt(name, base+i*seEntryBytes, "the grain directory's entry for disk offset %d has an unknown type", i*h.tableSpan())
		}
		if e*sectorSize > src.Size()-h.tableBytes() {
			return dir, formats.Corrupt(name, base+i*h.entrySize(), "the grain table for disk offset %d reaches past the end of the file", i*h.tableSpan())
		}
	}
	if room := src.Size() / roundUp(h.tableBytes()); tables > room {
		return dir, formats.Corrupt(name, base, "the grain directory has %d grain tables, the file has room for %d", tables, room)
	}
	return dir, nil
}

// roundUp rounds bytes up to whole sectors.
func roundUp(n int64) int64 { return (n + sectorSize - 1) &^ (sectorSize - 1) }

// loadTable returns a grain table; it is the load function of the cache s.tables.
func (s *sparse) loadTable(i int64) ([]byte, error) {
	e := s.dir.at(i)
	if s.dir.rebuilt != nil {
		return s.dir.rebuilt[e-1], nil
	}
	p := make([]byte, s.tableBytes())
	return p, s.file.Read(p, e*sectorSize, "a grain table")
}

// Map returns the run that starts at off, which is inside the extent: at most limit bytes, and not
// always the longest there is.
func (s *sparse) Map(off, limit int64) (mapped.Run, error) {
	limit = min(limit, s.length-off)
	index := off / s.tableSpan()
	if s.dir.at(index) == 0 {
		return s.mapHole(off, limit, index), nil
	}
	table, err := s.tables.Get(index)
	if err != nil {
		return mapped.Run{}, err
	}
	first := (off - index*s.tableSpan()) / s.grainBytes()
	return s.mapGrains(off, limit, table[first*s.entrySize():])
}

// mapHole returns the run of directory entries, from index on, that have no table.
func (s *sparse) mapHole(off, limit, index int64) mapped.Run {
	end := index + 1
	for end < s.dir.count() && end*s.tableSpan() < off+limit && s.dir.at(end) == 0 {
		end++
	}
	return mapped.Run{Length: min(end*s.tableSpan()-off, limit)}
}

// mapGrains returns the run at the start of entries.
func (s *sparse) mapGrains(off, limit int64, entries []byte) (mapped.Run, error) {
	size, entry := s.grainBytes(), s.entrySize()
	guest := off &^ (size - 1)
	first, what := s.grain(entries, guest)
	if what != "" {
		return mapped.Run{}, formats.Corrupt(name, s.entryOffset(guest), "the grain table entry for disk offset %d %s", guest, what)
	}
	n := int64(1) // grains
	for ; n*entry < int64(len(entries)) && guest+n*size < off+limit; n++ {
		if first.host == 0 && bytes.Equal(entries[n*entry:][:entry], entries[:entry]) {
			continue // nothing stored: most entries of most disks
		}
		// A fault in a later entry is for the read that comes to it.
		g, what := s.grain(entries[n*entry:], guest+n*size)
		if what != "" || g.kind != first.kind || g.kind == mapped.Data && g.host != first.host+n*size {
			break
		}
	}
	r := mapped.Run{Kind: first.kind, Length: min(guest+n*size-off, limit)}
	switch r.Kind {
	case mapped.Data:
		r.Host, r.File = first.host+off-guest, s.number
	case mapped.Encoded:
		r.Entries = entries
	}
	return r, nil
}

// grain is a decoded grain table entry.
type grain struct {
	kind mapped.Kind
	// host is where the bytes, or the marker before them, start in the file, for Data and Encoded.
	host int64
	bad  string // why the entry can't be right, or ""
}

// grain decodes the first of entries, of the grain at disk offset guest of the extent. what names the
// fault if there is one.
func (s *sparse) grain(entries []byte, guest int64) (g grain, what string) {
	g = s.header.grain(entries)
	switch {
	case g.bad != "":
		return g, g.bad
	// Of the disk's last grain the file must hold what belongs to the disk.
	case g.kind == mapped.Data && g.host > s.fileSize-min(s.grainBytes(), s.length-guest),
		g.kind == mapped.Encoded && g.host > s.fileSize-grainMarkerLen:
		return g, "points past the end of the file"
	}
	return g, ""
}

// grain decodes the grain table entry that p begins with, and doesn't judge where the grain lies.
func (h *header) grain(p []byte) grain {
	if h.kind == seSparseExtent {
		return h.seGrain(binary.LittleEndian.Uint64(p))
	}
	switch e := binary.LittleEndian.Uint32(p); {
	case e == 0:
		return grain{}
	case e == entryZeroedGrain && h.flags&flagZeroedGrains != 0:
		return grain{kind: mapped.Zero}
	case e == entryZeroedGrain:
		return grain{bad: "is a zeroed grain, which the header says there are none of"}
	case h.packed():
		return grain{kind: mapped.Encoded, host: int64(e) * sectorSize}
	default:
		return grain{kind: mapped.Data, host: int64(e) * sectorSize}
	}
}

// entryOffset is where in the file the entry of the grain at disk offset guest lies, or -1.
func (s *sparse) entryOffset(guest int64) int64 {
	if s.dir.rebuilt != nil {
		return -1
	}
	index := guest / s.tableSpan()
	return s.dir.at(index)*sectorSize + (guest-index*s.tableSpan())/s.grainBytes()*s.entrySize()
}
