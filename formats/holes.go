package formats

import (
	"context"
	"math"
)

// Holes finds what a source never stored. It remembers the last answer: to ask about the same hole or
// the same data again costs nothing. It is not safe for concurrent use.
type Holes struct {
	ctx    context.Context
	format string
	src    Source
	// All of [from, start) is a hole, and all of [start, end) is data. Bytes.
	from, start, end int64
}

// NewHoles returns a Holes of src for the parsers of the format called format. Without a HoleFinder
// everything is data.
func NewHoles(ctx context.Context, format string, src Source) *Holes {
	return &Holes{ctx: ctx, format: format, src: src}
}

// Next returns the first run [start, end) of data at or after off, in bytes; start == end is the size
// of a source that has none. What can't be told, and what can't be, is data, even past the source's
// end: reading will tell. It fails with the cause of the context, or with ReadFailed.
func (h *Holes) Next(off int64) (start, end int64, err error) {
	if off < h.from || off >= h.end && (off >= h.start || h.start < h.end) {
		if err := h.ask(off); err != nil {
			return 0, 0, err
		}
	}
	return max(off, h.start), h.end, nil
}

// ask asks the source what lies at off.
func (h *Holes) ask(off int64) error {
	if h.ctx.Err() != nil {
		return context.Cause(h.ctx)
	}
	data := Holes{h.ctx, h.format, h.src, off, off, math.MaxInt64}
	f, ok := h.src.(HoleFinder)
	if !ok {
		*h = data
		return nil
	}
	start, end, err := f.NextData(off)
	size := h.src.Size()
	switch {
	case err != nil:
		return ReadFailed(h.format, off, "where data lies", err)
	case start < off || end <= off || end > size || end <= start && start < size:
		*h = data
	default:
		h.from, h.start, h.end = off, start, end
	}
	return nil
}

// Empty reports whether all of the n bytes at off, n > 0, were never stored: they are zeros.
func (h *Holes) Empty(off, n int64) (bool, error) {
	start, end, err := h.Next(off)
	return err == nil && start < end && start-off >= n || start == end && off+n <= end, err
}

const (
	// tableShare is how many bytes of tables a byte of data may stand for. A table with anything in
	// it takes a block of the file system, which has 4 KiB; most have no more than 64 KiB.
	tableShare = 16
	// tableSlack more bytes of tables are read of any file: large tables with little in them.
	tableSlack = 64 << 20
)

// Tables bounds the tables of an image that are to be walked by the data that its file holds. The
// file's length is no bound: it may be one hole, which costs nobody anything to make and much to
// read. Nor is the number of tables: entries may share them.
type Tables struct {
	holes *Holes // where the tables lie
	rest  *Holes // behind known
	// known is the end of what was searched for data, and there bytes of it.
	known, there int64
	// data are the bytes of data in tables, and read all bytes of those that have any.
	data, read int64
}

// NewTables returns the Tables of src, for the parsers of the format called format.
func NewTables(ctx context.Context, format string, src Source) *Tables {
	return &Tables{holes: NewHoles(ctx, format, src), rest: NewHoles(ctx, format, src)}
}

// Add adds the table of n bytes at off, n > 0, and reports whether it is empty: all of it is a hole,
// and need not be read. It fails, with ErrCorrupt, at an entry at offset at of the file, if the tables
// added have more data than the file holds, or are too many for it.
func (t *Tables) Add(off, n, at int64) (empty bool, err error) {
	empty, err = t.holes.Empty(off, n)
	if empty || err != nil {
		return empty, err
	}
	t.read += n
	limit := max(n, tableSlack) // one table is as large as it is
	for end := off + n; off < end; {
		start, stop, err := t.holes.Next(off)
		if err != nil {
			return false, err
		}
		t.data += max(min(stop, end)-max(start, off), 0)
		if off = stop; start == stop {
			off = end
		}
		if start >= end {
			break
		}
		for t.data > t.there || (t.read-limit)/tableShare > t.there {
			if t.known >= t.rest.src.Size() {
				return false, Corrupt(t.rest.format, at, "the tables have more bytes than the file has data: they are shared, or lie in holes of the file")
			}
			if err := t.search(); err != nil {
				return false, err
			}
		}
	}
	return false, nil
}

// search finds more of the file's data.
func (t *Tables) search() error {
	start, end, err := t.rest.Next(t.known)
	if err != nil {
		return err
	}
	t.known = min(end, t.rest.src.Size())
	t.there += max(t.known-start, 0)
	return nil
}
