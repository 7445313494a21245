package vhd

import (
	"context"
	"fmt"
	"slices"

	"imgferry/formats"
)

// check compares the footer with its copy, and looks for blocks that lie outside the file or over
// something else. Memory is the table and as much again.
func check(ctx context.Context, src formats.Source, found func(formats.Finding)) (formats.Checked, error) {
	h, err := readHeaders(ctx, src)
	if err != nil {
		return formats.Checked{}, err
	}
	if err := h.checkFooters(ctx, src, found); err != nil || h.diskType == typeFixed {
		return formats.Checked{End: src.Size()}, err
	}
	b, err := loadTable(ctx, src, h)
	if err != nil {
		return formats.Checked{}, err
	}
	err = b.verify(ctx, func(f formats.Finding) error { found(f); return nil })
	return b.counts(), err
}

// checkFooters says what is wrong with the footers that are not needed.
func (h *headers) checkFooters(ctx context.Context, src formats.Source, found func(formats.Finding)) error {
	if h.dataEnd == src.Size() {
		found(formats.Finding{Offset: max(src.Size()-footerSize, 0), What: "the footer at the end is damaged or missing, only its copy at the start is left"})
		return nil
	}
	if h.diskType == typeFixed {
		return nil
	}
	c, known, err := footerAt(ctx, src, place{0, footerSize})
	switch {
	case err != nil:
		return err
	case !known || !c.good():
		found(formats.Finding{Offset: 0, What: "the copy of the footer is damaged or missing"})
	case c != h.footer:
		found(formats.Finding{Offset: 0, What: "the copy of the footer differs from the footer"})
	}
	return nil
}

// verify reports blocks that reach past the end, lie over headers or table, or overlap each other.
// It ends with the first error that found returns.
func (b blocks) verify(ctx context.Context, found func(formats.Finding) error) error {
	starts := make([]uint32, 0, min(b.count(), b.dataEnd/b.stride())) // in sectors
	for i := range b.count() {
		start, stored := b.start(i)
		if !stored {
			continue
		}
		what := ""
		switch {
		case start+b.stride() > b.dataEnd:
			what = "reaches past the end"
		case b.overMetadata(start):
			what = "lies over the headers or the table"
		default:
			starts = append(starts, uint32(start/sectorSize))
			continue
		}
		if err := found(formats.Finding{
			Offset: int64(b.tableOffset) + i*4,
			What:   fmt.Sprintf("the block for disk offset %d, at file offset %d, %s", i*int64(b.blockSize), start, what),
		}); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	slices.Sort(starts)
	for i := 1; i < len(starts); i++ {
		if int64(starts[i]-starts[i-1])*sectorSize >= b.stride() {
			continue
		}
		if err := found(formats.Finding{Offset: int64(starts[i]) * sectorSize, What: "two blocks overlap"}); err != nil {
			return err
		}
	}
	return nil
}

// overMetadata reports whether the block at start overlaps the footer's copy, the dynamic disk
// header or the table.
func (b blocks) overMetadata(start int64) bool {
	for _, r := range [][2]int64{
		{0, footerSize},
		{int64(b.dataOffset), headerSize},
		{int64(b.tableOffset), int64(b.maxEntries) * 4},
	} {
		if start < r[0]+r[1] && r[0] < start+b.stride() {
			return true
		}
	}
	return false
}

// counts tells how much is stored, how scattered, and where it ends.
func (b blocks) counts() formats.Checked {
	c := formats.Checked{
		Clusters: b.count(),
		End:      max(b.where.off+b.where.size, int64(b.dataOffset)+headerSize, int64(b.tableOffset)+int64(b.maxEntries)*4),
	}
	next := int64(-1)
	for i := range b.count() {
		start, stored := b.start(i)
		if !stored {
			continue
		}
		if c.Allocated > 0 && start != next {
			c.Fragmented++
		}
		c.Allocated++
		next = start + b.stride()
		c.End = max(c.End, next)
	}
	return c
}
