package qcow

import (
	"context"
	"encoding/binary"

	"imgferry/bitmap"
	"imgferry/formats"
	"imgferry/formats/mapped"
)

const (
	// window is how many sectors of file a pass over the tables keeps bits for: two times 32 MiB of
	// them for 128 GiB.
	window = 256 << 20
	// maxPasses bounds how often a check goes over the tables: files of up to 4 TiB are checked.
	maxPasses = 32
)

// checker holds what a check has seen.
type checker struct {
	ctx   context.Context
	src   formats.Source
	found func(formats.Finding)
	front
	l1     []byte
	fixed  [3]span // what the header places
	result formats.Checked

	// One pass looks at the sectors from start on. Its first pass also judges entries and counts.
	start int64
	whole *bitmap.Bitmap // sectors of L2 tables and data clusters
	parts *bitmap.Bitmap // sectors with compressed data, which share sectors with each other
}

// check finds what lies outside the file or over something else. Compressed clusters that overlap
// each other are not found: they have no alignment. There are no leaks to be found: the format
// doesn't count references, and its writer leaves what it replaces.
func check(ctx context.Context, src formats.Source, found func(formats.Finding)) (formats.Checked, error) {
	f, err := readFront(ctx, src)
	if err != nil {
		return formats.Checked{}, err
	}
	sectors := (src.Size() + sectorSize - 1) / sectorSize
	if sectors > maxPasses*window {
		return formats.Checked{}, formats.Unsupported(name, -1, "checking a file of %d bytes (at most %d)", src.Size(), int64(maxPasses)*window*sectorSize)
	}
	l1, err := f.readL1(ctx, src)
	if err != nil {
		return formats.Checked{}, err
	}
	c := &checker{ctx: ctx, src: src, found: found, front: f, l1: l1}
	c.result.Clusters = int64(f.size-1)>>f.clusterBits + 1
	c.fixed = [3]span{
		{0, headerLen},
		{int64(f.l1Offset), int64(f.l1Offset) + f.l1Bytes()},
		{int64(f.backingOffset), int64(f.backingOffset) + int64(len(f.backing))},
	}
	for _, s := range c.fixed {
		c.result.End = max(c.result.End, s.end)
	}
	for ; c.start < sectors; c.start += window {
		n := min(window, sectors-c.start)
		c.whole, c.parts = bitmap.New(n), bitmap.New(n)
		if err := c.pass(); err != nil {
			return c.result, err
		}
	}
	return c.result, nil
}

// span is a run of bytes of the file.
type span struct{ start, end int64 }

// pass walks all tables.
func (c *checker) pass() error {
	last := int64(-1) // where the cluster before ended
	table := make([]byte, c.l2Bytes())
	tables := formats.NewTables(c.ctx, name, c.src)
	for i := int64(0); i < int64(len(c.l1)); i += entrySize {
		l2 := binary.BigEndian.Uint64(c.l1[i:])
		if l2 == entryHole {
			continue
		}
		at := int64(c.l1Offset) + i
		if what := c.badL2(l2, c.src.Size()); what != "" {
			c.report(at, "the offset in an L1 entry "+what)
			continue
		}
		c.use(mapped.Data, span{int64(l2), int64(l2) + c.l2Bytes()}, at, "an L2 table")
		empty, err := tables.Add(int64(l2), c.l2Bytes(), at)
		if err != nil {
			return err
		}
		if empty {
			continue
		}
		if err := formats.ReadAt(c.ctx, name, c.src, table, int64(l2), "an L2 table"); err != nil {
			return err
		}
		guest := i / entrySize << c.l2CoverBits()
		for j := int64(0); j < int64(len(table)) && guest < int64(c.size); j, guest = j+entrySize, guest+c.cluster() {
			last = c.entry(binary.BigEndian.Uint64(table[j:]), int64(l2)+j, guest, last)
		}
	}
	return nil
}

// entry looks at the L2 entry e, at offset at of the file, for the disk offset guest. The cluster
// before it ended at last; it returns where this one ends.
func (c *checker) entry(e uint64, at, guest, last int64) int64 {
	cl := c.parseL2Entry(e)
	if cl.kind == mapped.Hole {
		return last
	}
	if what := c.bad(cl, guest, c.src.Size()); what != "" {
		c.report(at, "an L2 entry "+what)
		return -1
	}
	s := span{cl.host, cl.host + cl.stored}
	if cl.kind == mapped.Data {
		s.end = min(cl.host+c.cluster(), c.src.Size())
	}
	if c.start == 0 {
		c.result.Allocated++
		if cl.kind == mapped.Encoded {
			c.result.Compressed++
		}
		if last >= 0 && last != s.start {
			c.result.Fragmented++
		}
	}
	c.use(cl.kind, s, at, "a cluster")
	return s.end
}

// report is found for what every pass comes upon again.
func (c *checker) report(at int64, what string) {
	if c.start == 0 {
		c.found(formats.Finding{Offset: at, What: what})
	}
}

// use marks the sectors of s, which the entry at offset at points to, as far as this pass looks at
// them.
func (c *checker) use(kind mapped.Kind, s span, at int64, what string) {
	c.result.End = max(c.result.End, s.end)
	for _, f := range c.fixed {
		if s.start < f.end && f.start < s.end {
			c.report(at, what+" overlaps the header or the L1 table")
		}
	}
	marks, twice := c.whole, false
	if kind == mapped.Encoded {
		marks = c.parts
	}
	end := min((s.end+sectorSize-1)/sectorSize-c.start, marks.Len())
	for i := max(s.start/sectorSize-c.start, 0); i < end; i++ {
		twice = twice || c.whole.Get(i) || kind != mapped.Encoded && c.parts.Get(i)
		marks.Set(i)
	}
	if twice {
		c.found(formats.Finding{Offset: at, What: what + " overlaps another cluster"})
	}
}
