package vmdk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/bits"

	"imgferry/formats"
)

// windowSectors is how much of the file is looked at for overlaps at once: 128 GiB, in a map of
// 32 MiB. A larger file takes several passes over its tables.
const windowSectors = 1 << 28

// check looks at a descriptor, or at a sparse extent: bounds of all tables and grains, the markers
// of compressed ones, agreement of the two grain directories, overlaps, and what nothing uses. It
// reads all tables two times and a marker for each compressed grain.
func check(ctx context.Context, src formats.Source, found func(formats.Finding)) (formats.Checked, error) {
	c := checker{ctx: ctx, src: src, found: found, holes: formats.NewHoles(ctx, name, src), size: src.Size()}
	h, err := readHead(ctx, src)
	if err == nil && h.described {
		err = classless(h.check())
	}
	if err = c.report(err); err != nil {
		return formats.Checked{}, err
	}
	if !h.own() || h.header.check(c.size) != nil { // which was reported
		return formats.Checked{End: c.size}, nil
	}
	c.header = h.header
	if err := c.extent(); err != nil {
		return formats.Checked{}, err
	}
	return c.sums, nil
}

// classless drops errors that say nothing about structure: what is not supported may be sound.
func classless(err error) error {
	if errors.Is(err, formats.ErrUnsupported) || errors.Is(err, formats.ErrNotAllowed) {
		return nil
	}
	return err
}

// checker checks one sparse extent.
type checker struct {
	header
	ctx   context.Context
	src   formats.Source
	size  int64 // of the file, bytes
	found func(formats.Finding)
	holes *formats.Holes
	sums  formats.Checked
}

// report makes a finding of an error of class ErrCorrupt, and returns any other.
func (c *checker) report(err error) error {
	var e *formats.Error
	if errors.As(err, &e) && errors.Is(e.Class, formats.ErrCorrupt) {
		c.found(formats.Finding{Offset: e.Offset, What: e.What})
		return nil
	}
	return err
}

func (c *checker) bad(at int64, what string, args ...any) {
	c.found(formats.Finding{Offset: at, What: fmt.Sprintf(what, args...)})
}

// extent checks the sparse extent whose header is good.
func (c *checker) extent() error {
	c.sums.Clusters = int64((c.capacity-1)/c.grainSectors + 1)
	primary, err := c.directory(c.gdOffset, c.directoryField())
	if err != nil {
		return err
	}
	var redundant directory
	if c.flags&flagRedundant != 0 {
		if redundant, err = c.directory(c.rgdOffset, offRGDOffset); err != nil {
			return err
		}
	}
	if err := c.compare(primary, redundant); err != nil {
		return err
	}
	dir := primary
	if dir.entries == nil {
		dir = redundant
	}
	if dir.entries != nil {
		fits, err := c.entries(dir)
		if err == nil && fits {
			err = c.overlaps(primary, redundant)
		}
		if err != nil {
			return err
		}
	}
	if c.packed() && (c.header.stream || dir.entries == nil) {
		return c.stream(dir)
	}
	return nil
}

// directory reads a grain directory; what is wrong with it is a finding, and its entries are nil.
func (c *checker) directory(offset uint64, at int64) (directory, error) {
	dir, err := readDirectory(c.ctx, c.src, c.header, offset, at)
	if err == nil {
		err = dir.bound(c.ctx, c.src, c.header, func(int64) {})
	}
	if err != nil {
		return directory{}, c.report(err)
	}
	return dir, nil
}

// table reads the grain table of entry i of dir, or nil if there is none, or all of it is zeros in a
// hole of the file.
func (c *checker) table(dir directory, i int64) ([]byte, error) {
	if dir.entries == nil || dir.at(i) == 0 {
		return nil, nil
	}
	off := dir.at(i) * sectorSize
	if empty, err := c.holes.Empty(off, c.tableBytes()); empty || err != nil {
		return nil, err
	}
	return readAt(c.ctx, c.src, off, c.tableBytes(), "a grain table")
}

// compare looks for tables in which the two directories differ.
func (c *checker) compare(primary, redundant directory) error {
	if primary.entries == nil || redundant.entries == nil {
		return nil
	}
	for i := range primary.count() {
		if primary.at(i) == redundant.at(i) {
			continue
		}
		a, err := c.table(primary, i)
		if err != nil {
			return err
		}
		b, err := c.table(redundant, i)
		if err != nil {
			return err
		}
		if !c.alike(a, b) {
			c.bad(int64(c.rgdOffset)*sectorSize+i*entryBytes, "the redundant grain table for disk offset %d differs from the primary one", i*c.tableSpan())
		}
	}
	return nil
}

// alike compares two tables, of which nil is one of zeros.
func (c *checker) alike(a, b []byte) bool {
	if a == nil || b == nil {
		a, b = append(a, b...), make([]byte, max(len(a), len(b)))
	}
	return bytes.Equal(a, b)
}

// grains calls visit for each grain of dir that takes room in the file. at is where its entry lies.
func (c *checker) grains(dir directory, visit func(guest, at int64, g grain) error) error {
	for i := range dir.count() {
		table, err := c.table(dir, i)
		if err != nil {
			return err
		}
		guest := i * c.tableSpan()
		for k := 0; k < len(table) && guest < c.bytes(); k += int(c.entrySize()) {
			if g := c.header.grain(table[k:]); g.host > 0 || g.bad != "" {
				if err := visit(guest, dir.at(i)*sectorSize+int64(k), g); err != nil {
					return err
				}
			}
			guest += c.grainBytes()
		}
	}
	return nil
}

// entries counts the grains and checks that each lies in the file. It reports whether the file has
// room for as many.
func (c *checker) entries(dir directory) (fits bool, err error) {
	var next int64 // where the last grain ended, 0 at first
	markers := newWindow(c.ctx, c.src)
	err = c.grains(dir, func(guest, at int64, g grain) error {
		c.sums.Allocated++
		stored, err := c.stored(markers, guest, at, g, true)
		if err != nil {
			return err
		}
		if next != 0 && g.host != next {
			c.sums.Fragmented++
		}
		next = roundUp(g.host + stored)
		return nil
	})
	if c.packed() {
		c.sums.Compressed = c.sums.Allocated
	}
	least := c.grainBytes()
	if c.packed() {
		least = sectorSize
	}
	// The last grain may be cut by the file's end.
	if room := c.size/least + 1; c.sums.Allocated > room {
		c.bad(-1, "the grain tables have %d grains, the file has room for %d", c.sums.Allocated, room)
		return false, err
	}
	return true, err
}

// stored returns how many bytes the grain g, at disk offset guest, takes in the file, 0 if it is not
// in it. aloud reports what is wrong.
func (c *checker) stored(markers *window, guest, at int64, g grain, aloud bool) (int64, error) {
	bad := func(where int64, what string, args ...any) (int64, error) {
		if aloud {
			c.bad(where, what, args...)
		}
		return 0, nil
	}
	if g.bad != "" {
		return bad(at, "the entry for disk offset %d %s", guest, g.bad)
	}
	if !c.packed() {
		if g.host > c.size-min(c.grainBytes(), c.bytes()-guest) {
			return bad(at, "the grain for disk offset %d reaches past the end of the file", guest)
		}
		return min(c.grainBytes(), c.size-g.host), nil
	}
	if g.host > c.size-grainMarkerLen {
		return bad(at, "the grain for disk offset %d lies past the end of the file", guest)
	}
	p, err := markers.at(g.host, grainMarkerLen, "a grain's marker")
	if err != nil {
		return 0, err
	}
	m := parseMarker(p)
	if m.size == 0 || m.value != uint64(guest)/sectorSize {
		return bad(g.host, "the marker of the grain for disk offset %d is another one (sector %d, %d bytes)", guest, m.value, m.size)
	}
	var e *formats.Error
	if errors.As(c.checkGrainMarker(m, g.host, c.size), &e) {
		return bad(e.Offset, "%s", e.What)
	}
	return grainMarkerLen + int64(m.size), nil
}

// overlaps marks what is used, window by window of the file, and counts what isn't.
func (c *checker) overlaps(primary, redundant directory) error {
	fileSectors := (c.size + sectorSize - 1) / sectorSize
	if c.kind != seSparseExtent {
		fileSectors = min(fileSectors, maxAddressed/sectorSize)
	}
	u := usage{words: make([]uint64, (min(fileSectors, windowSectors)+63)/64)}
	dir := primary
	if dir.entries == nil {
		dir = redundant
	}
	var unused int64
	markers := newWindow(c.ctx, c.src)
	for u.start = 0; u.start < fileSectors; u.start += windowSectors {
		clear(u.words)
		c.claim(&u, 0, c.headerBytes(), "the header")
		if c.descriptorOffset != 0 {
			c.claim(&u, int64(c.descriptorOffset)*sectorSize, int64(c.descriptorSize)*sectorSize, "the descriptor")
		}
		c.claimDirectory(&u, primary, c.gdOffset, "grain")
		c.claimDirectory(&u, redundant, c.rgdOffset, "redundant grain")
		err := c.grains(dir, func(guest, at int64, g grain) error {
			if g.bad != "" || g.host/sectorSize >= u.start+windowSectors || (g.host+c.maxStoredBytes())/sectorSize < u.start {
				return nil
			}
			stored, err := c.stored(markers, guest, at, g, false)
			if err == nil && stored > 0 {
				c.claim(&u, g.host, stored, "the grain for disk offset %d", guest)
			}
			return err
		})
		if err != nil {
			return err
		}
		unused += u.unused(min(int64(c.overHead), fileSectors), fileSectors)
	}
	// Streams have metadata with markers of their own between the grains, and ESX extents grow ahead and
	// keep what was freed.
	if lost := unused / int64(c.grainSectors); lost > 0 && !c.packed() && c.kind == hostedExtent {
		c.found(formats.Finding{Leak: true, Offset: -1, What: "grains that nothing refers to", Count: lost})
	}
	return nil
}

func (c *checker) claimDirectory(u *usage, dir directory, offset uint64, what string) {
	if dir.entries == nil {
		return
	}
	c.claim(u, int64(offset)*sectorSize, int64(len(dir.entries)), "the %s directory", what)
	for i := range dir.count() {
		// The file may have millions of tables in other windows.
		if e := dir.at(i); e != 0 && u.holds(e, c.tableBytes()) {
			c.claim(u, e*sectorSize, c.tableBytes(), "the %s table for disk offset %d", what, i*c.tableSpan())
		}
	}
}

// claim marks n bytes at off as used, unless some are already: that is a finding.
func (c *checker) claim(u *usage, off, n int64, what string, args ...any) {
	c.sums.End = max(c.sums.End, off+n)
	from, to := off/sectorSize, (off+n+sectorSize-1)/sectorSize
	if !u.claim(from, to) {
		c.bad(off, "%s overlaps something else", fmt.Sprintf(what, args...))
	}
}

// stream walks the markers, and compares their number with the tables'.
func (c *checker) stream(dir directory) error {
	var grains int64
	err := walkMarkers(c.ctx, c.src, c.header, func(_ int64, m marker) error {
		if m.isGrain() {
			grains++
		}
		return nil
	})
	if err != nil {
		return c.report(err)
	}
	c.sums.End = c.size
	if dir.entries == nil {
		c.sums.Allocated, c.sums.Compressed = grains, grains
	} else if lost := grains - c.sums.Allocated; lost > 0 {
		c.found(formats.Finding{Leak: true, Offset: -1, What: "grains of the stream that nothing refers to", Count: lost})
	}
	return nil
}

// usage has a bit for each sector of a window of the file.
type usage struct {
	start int64 // the window's first sector
	words []uint64
}

// mask returns the bits from a to b of the word that holds a, both within the window, and the first
// bit behind them.
func mask(a, b int64) (m uint64, next int64) {
	next = min(b, a&^63+64)
	m = ^uint64(0) << (a & 63)
	if r := next & 63; r != 0 {
		m &= 1<<r - 1
	}
	return m, next
}

// clip returns what lies in the window of the sectors [from, to), counted from its start.
func (u *usage) clip(from, to int64) (a, b int64) {
	return max(from-u.start, 0), min(to-u.start, int64(len(u.words))*64)
}

// holds reports whether any of the n bytes at the sector from lies in the window.
func (u *usage) holds(from, n int64) bool {
	a, b := u.clip(from, from+roundUp(n)/sectorSize)
	return a < b
}

// claim marks the sectors [from, to) and reports whether all were free; else none is marked.
func (u *usage) claim(from, to int64) bool {
	a, b := u.clip(from, to)
	for i := a; i < b; {
		m, next := mask(i, b)
		if u.words[i/64]&m != 0 {
			return false
		}
		i = next
	}
	for i := a; i < b; {
		m, next := mask(i, b)
		u.words[i/64] |= m
		i = next
	}
	return true
}

// unused counts the free sectors of [from, to).
func (u *usage) unused(from, to int64) (n int64) {
	a, b := u.clip(from, to)
	for i := a; i < b; {
		m, next := mask(i, b)
		n += int64(bits.OnesCount64(^u.words[i/64] & m))
		i = next
	}
	return n
}
