package qcow2

import (
	"encoding/binary"
	"math/bits"

	"imgferry/formats"
	"imgferry/formats/mapped"
)

// sliceSize is how many bytes of an L2 table are loaded at once.
func (m *table) sliceSize() int64 { return min(m.clusterSize(), maxSlice) }

// loadSlice reads a piece of an L2 table; it is the load function of the cache m.l2.
func (m *table) loadSlice(off int64) ([]byte, error) {
	if off > m.fileSize-m.sliceSize() {
		return nil, formats.Corrupt(name, off, "an L2 table reaches past the end of the file")
	}
	p := make([]byte, m.sliceSize())
	return p, m.file.Read(p, off, "an L2 table")
}

// Map returns the run that starts at off, which is inside the disk: at most limit bytes, and not
// always the longest there is.
func (m *table) Map(off, limit int64) (mapped.Run, error) {
	index := off >> (m.clusterBits + m.l2Bits())
	l1 := binary.BigEndian.Uint64(m.l1[index*8:])
	table := int64(l1 & entryOffset)
	switch {
	case l1&l1Reserved != 0:
		return mapped.Run{}, m.badL1(index, "has reserved bits set")
	case table&(m.clusterSize()-1) != 0:
		return mapped.Run{}, m.badL1(index, "points into the middle of a cluster")
	case table == 0:
		return m.mapHole(off, limit, index), nil
	}
	inTable := off >> m.clusterBits & (1<<m.l2Bits() - 1) << m.entryBits() // bytes
	start := inTable &^ (m.sliceSize() - 1)
	slice, err := m.l2.Get(table + start)
	if err != nil {
		return mapped.Run{}, err
	}
	if m.extended() {
		return m.mapSubclusters(off, limit, slice[inTable-start:], table+inTable)
	}
	return m.mapClusters(off, limit, slice[inTable-start:], table+inTable)
}

func (m *table) badL1(index int64, what string) error {
	return formats.Corrupt(name, int64(m.l1Offset)+index*8, "L1 entry %d %s", index, what)
}

// mapHole returns the run of L1 entries, from index on, that have no L2 table.
func (m *table) mapHole(off, limit, index int64) mapped.Run {
	end := (index + 1) << (m.clusterBits + m.l2Bits())
	for i := (index + 1) * 8; i < int64(len(m.l1)) && end < off+limit; i += 8 {
		if binary.BigEndian.Uint64(m.l1[i:]) != 0 {
			break
		}
		end += 1 << (m.clusterBits + m.l2Bits())
	}
	return mapped.Run{Length: min(end-off, limit)}
}

// mapClusters returns the run at the start of entries, which lie at offset at of the file.
func (m *table) mapClusters(off, limit int64, entries []byte, at int64) (mapped.Run, error) {
	cs := m.clusterSize()
	first, err := m.cluster(off, entries, at)
	if err != nil {
		return mapped.Run{}, err
	}
	guest := off &^ (cs - 1)
	n := int64(1) // clusters
	for ; n*8 < int64(len(entries)) && guest+n*cs < off+limit; n++ {
		if first.kind != mapped.Encoded && m.repeats(entries, n, first) {
			continue // most of the entries of most images
		}
		// A fault in a later entry is for the read that comes to it.
		c, err := m.cluster(guest+n*cs, entries[n*8:], at+n*8)
		if err != nil || c.kind != first.kind || c.kind == mapped.Data && c.host != first.host+n*cs {
			break
		}
	}
	r := mapped.Run{Kind: first.kind, Length: min(guest+n*cs-off, limit)}
	switch r.Kind {
	case mapped.Data:
		r.Host, r.File = first.host+off-guest, m.dataIndex
	case mapped.Encoded:
		r.Entries = entries
	}
	return r, nil
}

// repeats reports whether entry n has the bits of entry 0, which is good and decodes to first, but
// for an offset that goes on where n data clusters end. Then it is good too.
func (m *table) repeats(entries []byte, n int64, first cluster) bool {
	e0, e := binary.BigEndian.Uint64(entries), binary.BigEndian.Uint64(entries[n*8:])
	if first.kind != mapped.Data {
		return e == e0
	}
	host := first.host + n<<m.clusterBits
	return e&^entryOffset == e0&^entryOffset && int64(e&entryOffset) == host && host <= m.dataSize-m.clusterSize()
}

// mapSubclusters is mapClusters for extended L2 entries.
func (m *table) mapSubclusters(off, limit int64, entries []byte, at int64) (mapped.Run, error) {
	first, err := m.cluster(off, entries, at)
	if err != nil {
		return mapped.Run{}, err
	}
	cs := m.clusterSize()
	guest := off &^ (cs - 1)
	sub := (off - guest) / m.subclusterSize()
	kind := first.kindOf(sub)
	// The run goes on into the next cluster as long as it reaches the end of one.
	n := sub + ones(first.are(kind)>>sub)
	for i := int64(1); n == i<<subclusterBits && i<<m.entryBits() < int64(len(entries)) && guest+i*cs < off+limit; i++ {
		// A fault in a later entry is for the read that comes to it.
		c, err := m.cluster(guest+i*cs, entries[i<<m.entryBits():], at+i<<m.entryBits())
		if err != nil || kind == mapped.Data && c.host != first.host+i*cs {
			break
		}
		n += ones(c.are(kind))
	}
	r := mapped.Run{Kind: kind, Length: min(guest+n*m.subclusterSize()-off, limit), Host: first.host + off - guest, File: m.dataIndex}
	if kind == mapped.Encoded {
		r.Entries = entries
	}
	return r, nil
}

// ones is how many of the low bits of x are set before the first that is not.
func ones(x uint32) int64 { return int64(bits.TrailingZeros32(^x)) }

// cluster decodes the first of entries, which lies at offset at of the file and describes the
// cluster that holds the guest offset off.
func (m *table) cluster(off int64, entries []byte, at int64) (c cluster, err error) {
	e, what := binary.BigEndian.Uint64(entries), ""
	if m.extended() {
		c, what = m.parseExtended(e, binary.BigEndian.Uint64(entries[8:]))
	} else {
		c, what = m.parseL2Entry(e)
	}
	guest := off &^ (m.clusterSize() - 1)
	if what == "" {
		what = m.misplaced(c, guest)
	}
	if what != "" {
		return c, formats.Corrupt(name, at, "the L2 entry for disk offset %d %s", guest, what)
	}
	return c, nil
}

// misplaced says what is wrong with the place of c, the cluster at disk offset guest, or "".
//
// Of the disk's last cluster the file must hold the bytes that belong to the disk: files that were
// preallocated by QEMU 2 end there. Compressed data is given in whole sectors, the last of which the
// file may lack; whether the rest suffices is for the decoder to say.
func (m *table) misplaced(c cluster, guest int64) string {
	switch {
	case c.kind == mapped.Encoded && c.host >= m.fileSize:
		return "points past the end of the file"
	case c.kind != mapped.Data:
		return ""
	case m.dataIndex > 0 && c.host != guest:
		return "does not point to its own place in the external data file"
	}
	if n := c.needed(&m.header); n > 0 && c.host > m.dataSize-min(n, int64(m.size)-guest) {
		return "points past the end of the file"
	}
	return ""
}
