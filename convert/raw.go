package convert

import (
	"context"
	"fmt"
	"io"

	"imgferry/bitmap"
	"imgferry/formats"
)

const (
	// rawStep is how much a worker reads and writes at a time, in bytes. Larger steps are slower:
	// the copy then falls out of the caches (measured: 512 KiB best of 64 KiB to 4 MiB).
	rawStep = 512 << 10
	// packedStep is the same for compressed data, whose decoder wants the caches too. Clusters are not
	// split.
	packedStep = 256 << 10
	// rawHole is the unit in which zeros become holes, in bytes: a page, and the block of the file
	// systems in use.
	rawHole = 4096
)

// RawTarget is what a raw disk is written to at any place: a new file, whose unwritten parts read as
// zeros, or a Zeroer.
type RawTarget interface {
	WriteAt(p []byte, off int64) (int, error)
	// Truncate makes the target a disk of size bytes, or fails if it can't be one.
	Truncate(size int64) error
}

// Zeroer is a RawTarget that holds old bytes: a device. What is empty must be zeroed.
type Zeroer interface {
	RawTarget
	// Zero makes the n bytes at off zeros.
	Zero(off, n int64) error
}

// Raw writes img's guest bytes to t, whose length becomes the virtual size. What is empty is not
// written, in units of 4 KiB; a Zeroer zeros it, in whole blocks.
func Raw(ctx context.Context, img formats.Image, t RawTarget, o Options) (Result, error) {
	if err := CheckSize(img); err != nil {
		return Result{}, err
	}
	if err := t.Truncate(img.Size()); err != nil {
		return Result{}, err
	}
	c := newCollector(img.Size(), o)
	r := rawCopy{img: img, t: t, c: c}
	e := engine{
		img:     img,
		workers: o.workers(),
		spare:   o.spare(),
		all:     o.Sparse == SparseNone,
		buffers: func(s *slot) { s.block = newBlock() },
		emit:    func(s *slot) error { c.add(s); return nil },
	}
	copyBlock := r.spans
	var gaps *zeroing
	if z, ok := t.(Zeroer); ok {
		copyBlock = r.whole
		gaps = &zeroing{to: z.Zero, ctx: ctx}
		e.emit = func(s *slot) error {
			c.add(s)
			if s.empty {
				return nil
			}
			return gaps.skip(s.index*BlockSize, min((s.index+1)*BlockSize, img.Size()))
		}
	} else if e.all {
		copyBlock = r.whole
	}
	// Reading and writing take turns in small steps, so one goroutine does both: of a sequential image
	// the one producer, which alone may read.
	e.read = func(formats.Image, *slot) error { return nil }
	e.work = copyBlock
	if img.Sequential() {
		e.read = func(_ formats.Image, s *slot) error { return copyBlock(ctx, s) }
		e.work = func(context.Context, *slot) error { return nil }
	}
	if err := e.run(ctx); err != nil {
		return Result{}, err
	}
	if gaps != nil {
		if err := gaps.skip(img.Size(), img.Size()); err != nil {
			return Result{}, err
		}
	}
	return c.result(), nil
}

// rawCopy copies blocks.
type rawCopy struct {
	img formats.Image
	t   RawTarget
	c   *collector
}

// whole copies block s.index in one piece, unless it is empty.
func (r rawCopy) whole(_ context.Context, s *slot) error {
	if err := readBlock(r.img, s); err != nil {
		return err
	}
	if r.c.look(s); s.empty {
		return nil
	}
	off := s.index * BlockSize
	_, err := r.t.WriteAt(s.block[:min(BlockSize, r.img.Size()-off)], off)
	return err
}

// spans copies what the extents tell of block s.index, in steps. A block that is to be hashed is kept whole.
func (r rawCopy) spans(ctx context.Context, s *slot) error {
	start, done := s.index*BlockSize, int64(0) // done is bytes of the block that are kept
	zero := true
	step := int64(rawStep)
	if s.unit > 0 {
		step = max(packedStep, s.unit)
	}
	for _, x := range s.candidate.spans {
		for end := x.off + x.n; x.off < end; {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			p := s.block[:min(step, end-x.off)]
			if r.c.hashes() {
				from := x.off - start
				clear(s.block[done:from])
				done = from + int64(len(p))
				p = s.block[from:done]
			}
			if err := formats.ReadFull(r.img, p, x.off); err != nil {
				return fmt.Errorf("reading the disk at %d: %w", x.off, err)
			}
			wrote, err := r.write(p, x.off)
			if err != nil {
				return err
			}
			zero = zero && !wrote
			x.off += int64(len(p))
		}
	}
	if r.c.hashes() {
		clear(s.block[done:])
	}
	r.c.found(s, zero)
	return nil
}

// write writes p, or of it what is not empty, and says whether any of it is not zero.
func (r rawCopy) write(p []byte, off int64) (data bool, err error) {
	if r.c.sparse == SparseZeros {
		return writeData(r.t, p, off)
	}
	_, err = r.t.WriteAt(p, off)
	return !r.c.hashes() || !bitmap.IsZero(p), err
}

// writeData writes the runs of p that are not zero, in units of rawHole of the disk, and says whether
// there were any.
func writeData(t RawTarget, p []byte, off int64) (wrote bool, err error) {
	// unit returns the end of the unit that begins at i.
	unit := func(i int) int { return min(len(p), i+rawHole-int((off+int64(i))%rawHole)) }
	for i := 0; i < len(p); {
		j := unit(i)
		if bitmap.IsZero(p[i:j]) {
			i = j
			continue
		}
		for j < len(p) && !bitmap.IsZero(p[j:unit(j)]) {
			j = unit(j)
		}
		if _, err := t.WriteAt(p[i:j], off+int64(i)); err != nil {
			return wrote, err
		}
		wrote = true
		i = j
	}
	return wrote, nil
}

// zeros is what is written where nothing is read.
var zeros [rawStep]byte

// zeroing makes zeros of what lies between blocks that come in ascending order.
type zeroing struct {
	to  func(off, n int64) error
	ctx context.Context
	pos int64 // bytes: dealt with up to here
}

// zeroStep bounds what is zeroed between two looks at the context, in bytes.
const zeroStep = 256 << 20

// skip zeros what lies before off, and goes on behind end.
func (z *zeroing) skip(off, end int64) error {
	for z.pos < off {
		if z.ctx.Err() != nil {
			return context.Cause(z.ctx)
		}
		n := min(off-z.pos, zeroStep)
		if err := z.to(z.pos, n); err != nil {
			return err
		}
		z.pos += n
	}
	z.pos = end
	return nil
}

// RawStream writes img's guest bytes to w front to back, zeros included: w is a pipe.
func RawStream(ctx context.Context, img formats.Image, w io.Writer, o Options) (Result, error) {
	if err := CheckSize(img); err != nil {
		return Result{}, err
	}
	c := newCollector(img.Size(), o)
	gaps := &zeroing{ctx: ctx, to: func(_, n int64) error {
		for ; n > 0; n -= min(n, int64(len(zeros))) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if _, err := w.Write(zeros[:min(n, int64(len(zeros)))]); err != nil {
				return err
			}
		}
		return nil
	}}
	e := engine{
		img:     img,
		workers: o.workers(),
		spare:   o.spare(),
		all:     o.Sparse == SparseNone,
		buffers: func(s *slot) { s.block = newBlock() },
		read:    readBlock,
		work:    func(_ context.Context, s *slot) error { c.look(s); return nil },
		emit: func(s *slot) error {
			if c.add(s); s.empty {
				return nil
			}
			off := s.index * BlockSize
			end := min(off+BlockSize, img.Size())
			if err := gaps.skip(off, end); err != nil {
				return err
			}
			_, err := w.Write(s.block[:end-off])
			return err
		},
	}
	if err := e.run(ctx); err != nil {
		return Result{}, err
	}
	if err := gaps.skip(img.Size(), img.Size()); err != nil {
		return Result{}, err
	}
	return c.result(), nil
}
