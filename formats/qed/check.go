package qed

import (
	"context"
	"encoding/binary"

	"imgferry/bitmap"
	"imgferry/formats"
)

// maxChecked is how many clusters of file Check keeps a bit for: 64 MiB of them.
const maxChecked = 512 << 20

// checker holds what a check has seen.
type checker struct {
	ctx   context.Context
	src   formats.Source
	found func(formats.Finding)
	header
	holes  *formats.Holes
	used   *bitmap.Bitmap // by cluster of the file
	result formats.Checked
}

// check finds clusters that are used twice, that lie outside the file, and that nobody uses
// ("Consistency checking").
func check(ctx context.Context, src formats.Source, found func(formats.Finding)) (formats.Checked, error) {
	f, err := readFront(ctx, src)
	if err != nil {
		return formats.Checked{}, err
	}
	clusters := src.Size() / f.cluster()
	if clusters > maxChecked {
		return formats.Checked{}, formats.Unsupported(name, -1, "checking a file of %d clusters (at most %d)", clusters, maxChecked)
	}
	c := &checker{ctx: ctx, src: src, found: found, header: f.header, holes: formats.NewHoles(ctx, name, src), used: bitmap.New(clusters)}
	c.result.Clusters = int64((f.imageSize + uint64(f.clusterSize) - 1) / uint64(f.clusterSize))
	c.result.End = int64(min(f.headerEnd(), uint64(src.Size())))
	c.use(c.l1Offset, int64(c.tableSize), "the L1 table", int64(c.l1Offset))
	if err := c.entries(c.l1Offset, "the L1 table", c.l1Entry); err != nil {
		return c.result, err
	}
	c.leaks()
	return c.result, nil
}

// entries calls visit for each entry of the table at off that is not 0, with the entry's place.
func (c *checker) entries(off uint64, what string, visit func(at int64, entry uint64) error) error {
	p := make([]byte, min(c.tableBytes(), maxSlice))
	for at := int64(off); at < int64(off)+c.tableBytes(); at += int64(len(p)) {
		if empty, err := c.holes.Empty(at, int64(len(p))); err != nil {
			return err
		} else if empty {
			continue
		}
		if err := formats.ReadAt(c.ctx, name, c.src, p, at, what); err != nil {
			return err
		}
		for i := 0; i < len(p); i += entrySize {
			if e := binary.LittleEndian.Uint64(p[i:]); e != entryHole {
				if err := visit(at+int64(i), e); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (c *checker) l1Entry(at int64, l2 uint64) error {
	if !c.inFile(l2, c.tableBytes(), c.src.Size()) {
		c.found(formats.Finding{Offset: at, What: "an L1 entry points outside the file's clusters"})
		return nil
	}
	// A table that is used twice is not walked twice: the work stays bounded by the file's size.
	if !c.use(l2, int64(c.tableSize), "an L2 table", at) {
		return nil
	}
	first := (at - int64(c.l1Offset)) / entrySize << c.entryBits() // cluster of the disk
	var last uint64                                                // fragments are counted within a table, as in QEMU
	return c.entries(l2, "an L2 table", func(at int64, e uint64) error {
		if e == entryZero {
			return nil
		}
		if first+(at-int64(l2))/entrySize < c.result.Clusters {
			c.result.Allocated++
			if last != 0 && last+uint64(c.clusterSize) != e {
				c.result.Fragmented++
			}
			last = e
		}
		if !c.inFile(e, c.cluster(), c.src.Size()) {
			c.found(formats.Finding{Offset: at, What: "an L2 entry points outside the file's clusters"})
			return nil
		}
		c.use(e, 1, "a data cluster", at)
		return nil
	})
}

// use marks n clusters of the file, which hold what the entry at offset at points to, and reports
// whether they were free.
func (c *checker) use(off uint64, n int64, what string, at int64) bool {
	first := int64(off) / c.cluster()
	var twice int64
	for i := first; i < first+n; i++ {
		if c.used.Get(i) {
			twice++
		}
		c.used.Set(i)
	}
	c.result.End = max(c.result.End, (first+n)*c.cluster())
	if twice > 0 {
		c.found(formats.Finding{Offset: at, What: what + " overlaps another cluster", Count: twice})
	}
	return twice == 0
}

// leaks finds runs of clusters without a use.
func (c *checker) leaks() {
	for i := int64(c.headerSize); i < c.used.Len(); i++ {
		start := i
		for i < c.used.Len() && !c.used.Get(i) {
			i++
		}
		if i > start {
			c.found(formats.Finding{Leak: true, Offset: start * c.cluster(), What: "clusters that nothing uses", Count: i - start})
		}
	}
}
