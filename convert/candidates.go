package convert

import (
	"context"
	"iter"
	"sort"

	"imgferry/bitmap"
	"imgferry/formats"
)

// span is a stretch of the disk in bytes.
type span struct{ off, n int64 }

// candidate is a block that may hold data: it must be looked at.
type candidate struct {
	index int64
	// spans are the parts of the block, ascending and apart, that the extents don't prove to be zero.
	// They are valid until the next candidate.
	spans []span
	// unit is the largest piece of it that is decoded at once, in bytes, BlockSize at most. 0: it is not
	// compressed.
	unit int64
}

// isEmpty says that the extents prove what lies in these bounds of the block, in bytes, to be zero.
func (c *candidate) isEmpty(from, to int) bool {
	start := c.index * BlockSize
	i := sort.Search(len(c.spans), func(i int) bool { return c.spans[i].off+c.spans[i].n > start+int64(from) })
	return i == len(c.spans) || c.spans[i].off >= start+int64(to)
}

// candidates yields, ascending, the blocks in which img's extents don't prove everything to be zero;
// with all, every block there is.
func candidates(ctx context.Context, img formats.Image, all bool) iter.Seq2[candidate, error] {
	return func(yield func(candidate, error) bool) {
		if err := CheckSize(img); err != nil {
			yield(candidate{}, err)
			return
		}
		c := candidate{index: -1} // found, not yet yielded: more of it may follow
		// reach yields what comes before block to, and c if it is.
		reach := func(to int64) bool {
			if c.index >= 0 && len(c.spans) > 0 && !yield(c, nil) {
				return false
			}
			for i := c.index + 1; all && i < to; i++ {
				if !yield(candidate{index: i}, nil) {
					return false
				}
			}
			c = candidate{index: to, spans: c.spans[:0]}
			return true
		}
		for x, err := range img.Extents(ctx) {
			if err != nil {
				yield(candidate{}, err)
				return
			}
			if x.Zero {
				continue
			}
			for end := x.Offset + x.Length; x.Offset < end; {
				if i := x.Offset / BlockSize; i != c.index && !reach(i) {
					return
				}
				n := min(end, (c.index+1)*BlockSize) - x.Offset
				if k := len(c.spans) - 1; k >= 0 && c.spans[k].off+c.spans[k].n == x.Offset {
					c.spans[k].n += n
				} else {
					c.spans = append(c.spans, span{x.Offset, n})
				}
				if x.Compressed {
					c.unit = max(c.unit, unit(x))
				}
				x.Offset += n
			}
		}
		reach(bitmap.Blocks(img.Size()))
	}
}

// unit is how much of a compressed extent should be read at once, in bytes.
func unit(x formats.Extent) int64 {
	if x.Unit <= 0 || x.Unit > BlockSize {
		return BlockSize
	}
	return x.Unit
}

// Candidates yields, ascending, the numbers of the blocks that img's extents don't prove to be
// zero: those that must be read.
func Candidates(ctx context.Context, img formats.Image) iter.Seq2[int64, error] {
	return func(yield func(int64, error) bool) {
		for c, err := range candidates(ctx, img, false) {
			if !yield(c.index, err) || err != nil {
				return
			}
		}
	}
}

// Count returns how many blocks Candidates yields.
func Count(ctx context.Context, img formats.Image) (int64, error) {
	var n int64
	for _, err := range Candidates(ctx, img) {
		if err != nil {
			return 0, err
		}
		n++
	}
	return n, nil
}
