// Package zvhd2 reads and writes ZVHD2, the compressed disk image of Huawei Cloud: a stream of
// independently compressed blocks of 2 MiB, then an index, a bitmap and a trailer. Blocks that are
// all zero are not stored.
//
// The reader is stricter than the vendor's: every position, count and number that the file holds
// twice must agree. It is not for the older ZVHD, whose blocks are one continuous stream.
package zvhd2

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math"
	"slices"
	"sort"
	"sync"
	"time"

	"imgferry/formats"
)

// name is the format's name; qemu-img has none for it.
const name = "zvhd2"

// Format returns ZVHD2 for the table of formats.
func Format() formats.Format {
	return formats.Format{Name: name, Probe: probe, Open: open, Info: info, Check: structure}
}

// probe looks for the cookie in the header and, should that be damaged, in the trailer.
func probe(src formats.Source) (bool, error) {
	var b [len(cookie)]byte
	for _, pos := range []int64{0, src.Size() - page} {
		if pos < 0 || pos+int64(len(b)) > src.Size() {
			continue
		}
		if err := formats.ReadFull(src, b[:], pos); err != nil {
			return false, formats.ReadFailed(name, pos, "the cookie", err)
		}
		if string(b[:]) == cookie {
			return true, nil
		}
	}
	return false, nil
}

func open(ctx context.Context, src formats.Source, _ formats.Resolver) (formats.Image, error) {
	t, index, err := load(ctx, src)
	if err != nil {
		return nil, err
	}
	return newImage(ctx, src, t, index), nil
}

// image is an opened ZVHD2 file. Its memory is the index (8 bytes a stored block), the cache, and
// for each goroutine in ReadAt one chunk (at most maxChunk) and the state of its decoder.
type image struct {
	ctx    context.Context // ends reads
	cancel context.CancelCauseFunc
	src    formats.Source
	size   int64 // bytes
	codec  Codec
	index  []chunkRef
	cache  cache
	bufs   sync.Pool // *[]byte, for chunks
}

// newImage returns the image that load has found in src. Close must follow, or ctx end.
func newImage(ctx context.Context, src formats.Source, t footer, index []chunkRef) *image {
	// The reference driver presents currSize, the disk rounded up to a GiB. We present what was
	// converted: a copy of a copy keeps its size, and what lies beyond reads as zero anyway.
	im := &image{src: src, size: int64(t.origSize), codec: codecOf(t.method), index: index}
	im.ctx, im.cancel = context.WithCancelCause(ctx)
	return im
}

// Size returns the size of the disk that was converted, in bytes.
func (im *image) Size() int64 { return im.size }

// Sequential returns false: blocks are compressed one by one.
func (im *image) Sequential() bool { return false }

// Close ends reads under way and closes the source.
func (im *image) Close() error {
	im.cancel(fs.ErrClosed)
	return im.src.Close()
}

// find returns the index of the first chunk at or after block; the sentinel if there is none.
func (im *image) find(block int64) int {
	return sort.Search(len(im.index)-1, func(i int) bool { return int64(im.index[i].block) >= block })
}

// ReadAt decodes whole blocks straight into p. What p takes of a block in part comes from a cache
// of cacheBlocks decoded blocks.
func (im *image) ReadAt(p []byte, off int64) (int, error) {
	switch {
	case im.ctx.Err() != nil:
		return 0, context.Cause(im.ctx)
	case off < 0:
		return 0, fmt.Errorf("%s: read at negative offset %d", name, off)
	case off >= im.size:
		return 0, io.EOF
	}
	var atEnd error
	if rest := im.size - off; int64(len(p)) > rest {
		p, atEnd = p[:rest], io.EOF
	}
	n := 0
	for n < len(p) {
		if im.ctx.Err() != nil {
			return n, context.Cause(im.ctx)
		}
		m, err := im.readPart(p[n:], off+int64(n))
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, atEnd
}

// readPart fills the start of p: a run of zeros, or what it takes of one block.
func (im *image) readPart(p []byte, off int64) (int, error) {
	block, within := off/BlockSize, off%BlockSize
	k := im.find(block)
	if next := int64(im.index[k].block); next != block {
		// The sentinel's block begins at or after the end of p.
		n := int(min(int64(len(p)), next*BlockSize-off))
		clear(p[:n])
		return n, nil
	}
	if within == 0 && len(p) >= BlockSize {
		if err := im.decode(p[:BlockSize:BlockSize], k); err != nil {
			return 0, err
		}
		return BlockSize, nil
	}
	data, err := im.cache.get(uint32(block), func(dst []byte) error { return im.decode(dst, k) })
	if err != nil {
		return 0, err
	}
	return copy(p, data[within:]), nil
}

// decode reads chunk k and decodes it into dst, which has BlockSize bytes.
func (im *image) decode(dst []byte, k int) error {
	pos, end := im.index[k].pos(), im.index[k+1].pos()
	buf, ok := im.bufs.Get().(*[]byte)
	if !ok {
		buf = new([]byte)
	}
	defer im.bufs.Put(buf)
	*buf = slices.Grow((*buf)[:0], int(end-pos))[:end-pos]
	if err := read(im.ctx, im.src, *buf, pos, fmt.Sprintf("the chunk of block %d", im.index[k].block)); err != nil {
		return err
	}
	return decodeChunk(dst, *buf, im.codec, pos, im.index[k].block)
}

// Extents yields stored blocks as compressed data and the runs between them as zeros.
func (im *image) Extents(ctx context.Context) iter.Seq2[formats.Extent, error] {
	return func(yield func(formats.Extent, error) bool) {
		off := int64(0)
		for k := 0; off < im.size; {
			for _, c := range []context.Context{ctx, im.ctx} {
				if c.Err() != nil {
					yield(formats.Extent{}, context.Cause(c))
					return
				}
			}
			e := formats.Extent{Offset: off, HostOffset: -1}
			if start := int64(im.index[k].block) * BlockSize; start > off {
				e.Zero, e.Absent = true, true
				off = min(start, im.size)
			} else {
				e.Compressed = true
				first := im.index[k].block
				from := k
				for k < len(im.index)-1 && im.index[k].block-first == uint32(k-from) {
					k++
				}
				off = min(off+int64(k-from)*BlockSize, im.size)
			}
			e.Length = off - e.Offset
			if !yield(e, nil) {
				return
			}
		}
	}
}

// info answers from the trailer or, if that is damaged, from the header.
func info(ctx context.Context, src formats.Source) (formats.Info, error) {
	in := formats.Info{Format: name}
	if _, _, in.Problem = load(ctx, src); in.Problem != nil && !isImageFault(in.Problem) {
		return formats.Info{}, in.Problem
	}
	for _, pos := range []int64{src.Size() - page, 0} {
		if pos < 0 || pos+footerSize > src.Size() {
			continue
		}
		b, err := readFooter(ctx, src, pos, "footer")
		if err != nil {
			if !isImageFault(err) {
				return formats.Info{}, err
			}
			continue
		}
		if t := parseFooter(b); verifyChecksum(b, pos, "footer") == nil {
			t.describe(&in)
			break
		}
	}
	return in, nil
}

// describe fills in what f says.
func (f footer) describe(in *formats.Info) {
	in.VirtualSize = int64(min(f.origSize, math.MaxInt64))
	in.ClusterSize = int64(f.blockSize)
	in.Specific = []formats.Property{
		{Name: "uuid", Value: fmt.Sprintf("%x-%x-%x-%x-%x", f.uuid[:4], f.uuid[4:6], f.uuid[6:8], f.uuid[8:10], f.uuid[10:])},
		{Name: "blocks", Value: uint64(f.maxBlocks)},
		{Name: "stored-blocks", Value: uint64(f.stored)},
	}
	if f.method <= methodZstd {
		in.Specific = append(in.Specific, formats.Property{Name: "compression type", Value: codecOf(f.method).String()})
	}
	if f.timestamp != 0 { // 0 is what writers put that keep the clock out of the file
		created := epoch.Add(time.Duration(f.timestamp) * time.Second).Format(time.RFC3339)
		in.Specific = append(in.Specific, formats.Property{Name: "created", Value: created})
	}
}

// epoch is where the format's clock begins.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
