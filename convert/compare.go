package convert

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"math"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"imgferry/bitmap"
	"imgferry/formats"
)

// compareStep is how many bytes of each disk are compared at once, or one unit of compressed data if
// that is more: they stay in the CPU's cache.
const compareStep = 256 << 10

// Compare finds the first byte in which two disks differ. A disk reads as zeros beyond its end. It
// returns -1 if there is none. Memory is two blocks of 2 MiB a worker.
func Compare(ctx context.Context, a, b formats.Image, o Options) (offset int64, err error) {
	for _, img := range []formats.Image{a, b} {
		if err := CheckSize(img); err != nil {
			return 0, err
		}
	}
	c := comparison{a: a, b: b, progress: o.Progress}
	c.first.Store(math.MaxInt64)
	if c.progress == nil {
		c.progress = new(Progress)
	}
	c.progress.Total.Store(max(a.Size(), b.Size()))
	workers := o.workers()
	if a.Sequential() || b.Sequential() {
		workers = 1
	}
	if err := c.run(ctx, workers); err != nil {
		return 0, err
	}
	first := c.first.Load()
	switch {
	case c.failure != nil && c.failedAt <= first:
		return 0, c.failure
	case first < math.MaxInt64:
		return first, nil
	}
	return -1, nil
}

type comparison struct {
	a, b     formats.Image
	progress *Progress
	first    atomic.Int64 // the lowest offset at which the disks were seen to differ, or could not be read

	mu       sync.Mutex // guards what follows
	failedAt int64
	failure  error // of the read at the lowest offset, failedAt
}

// stop notes that nothing behind off has to be looked at.
func (c *comparison) stop(off int64) {
	for first := c.first.Load(); off < first && !c.first.CompareAndSwap(first, off); {
		first = c.first.Load()
	}
}

// fail notes that the disks can't be read at off. What lies before is still looked at: the same disks always
// have the same result.
func (c *comparison) fail(off int64, err error) {
	c.mu.Lock()
	if c.failure == nil || off < c.failedAt {
		c.failedAt, c.failure = off, err
	}
	c.mu.Unlock()
	c.stop(off)
}

// pair is a stretch of both disks, at most a block long, that has to be looked at.
type pair struct {
	offset, length int64
	zeroA, zeroB   bool // known without reading; never both
	step           int64
}

func (c *comparison) run(parent context.Context, workers int) error {
	g, ctx := errgroup.WithContext(parent)
	pairs := make(chan pair, workers)
	g.Go(func() error {
		defer close(pairs)
		for p, err := range c.pairs(ctx) {
			if err != nil {
				return err
			}
			if p.offset > c.first.Load() {
				return nil // what is looked at already may differ earlier, but nothing after it
			}
			select {
			case pairs <- p:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	for range workers {
		g.Go(func() error {
			bufA, bufB := newBlock(), newBlock()
			for p := range pairs {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				c.look(p, bufA, bufB)
				c.progress.Read.Add(p.length)
			}
			return nil
		})
	}
	err := g.Wait()
	if parent.Err() != nil && (err != nil || c.failure != nil) {
		return context.Cause(parent) // reads that were under way fail in their own words
	}
	return err
}

// look compares p step by step and notes the first difference or failure.
func (c *comparison) look(p pair, bufA, bufB []byte) {
	end := p.offset + p.length
	for off, n := p.offset, int64(0); off < end; off += n {
		// Up to a multiple of the step, where units of compressed data end.
		n = min(p.step-off%p.step, end-off)
		x, y := bufA[:n], bufB[:n]
		if !p.zeroA {
			if err := readPadded(c.a, x, off); err != nil {
				c.fail(off, fmt.Errorf("reading the first disk at %d: %w", off, err))
				return
			}
		}
		if !p.zeroB {
			if err := readPadded(c.b, y, off); err != nil {
				c.fail(off, fmt.Errorf("reading the second disk at %d: %w", off, err))
				return
			}
		}
		if at := difference(x, y, p.zeroA, p.zeroB); at >= 0 {
			c.stop(off + at)
			return
		}
	}
}

// readPadded reads img as if it went on with zeros.
func readPadded(img formats.Image, p []byte, off int64) error {
	n := max(0, min(int64(len(p)), img.Size()-off))
	clear(p[n:])
	if n == 0 {
		return nil
	}
	// The capacity stays: decoders use it.
	if k, err := img.ReadAt(p[:n], off); int64(k) < n {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	return nil
}

// difference returns the index of the first byte that differs, or -1.
func difference(x, y []byte, zeroX, zeroY bool) int64 {
	if zeroX {
		x, y = y, x
	}
	if zeroX || zeroY {
		if bitmap.IsZero(x) {
			return -1
		}
		for i, v := range x {
			if v != 0 {
				return int64(i)
			}
		}
	}
	if bytes.Equal(x, y) {
		return -1
	}
	for i := range x {
		if x[i] != y[i] {
			return int64(i)
		}
	}
	return -1
}

// pairs walks both disks' extents side by side and yields what is not known to be zero in both.
func (c *comparison) pairs(ctx context.Context) iter.Seq2[pair, error] {
	return func(yield func(pair, error) bool) {
		walkA, walkB := formats.NewWalk(ctx, c.a), formats.NewWalk(ctx, c.b)
		defer walkA.Stop()
		defer walkB.Stop()
		end := max(c.a.Size(), c.b.Size())
		for off := int64(0); off < end; {
			x, err := at(walkA, off)
			if err != nil {
				yield(pair{}, fmt.Errorf("the first disk: %w", err))
				return
			}
			y, err := at(walkB, off)
			if err != nil {
				yield(pair{}, fmt.Errorf("the second disk: %w", err))
				return
			}
			p := pair{offset: off, length: min(x.Length, y.Length, end-off), zeroA: x.Zero, zeroB: y.Zero, step: compareStep}
			if p.zeroA && p.zeroB {
				c.progress.Read.Add(p.length)
				off += p.length
				continue
			}
			// Up to the next boundary, so that whole compressed blocks are decoded once.
			p.length = min(p.length, BlockSize-off%BlockSize)
			for _, e := range []formats.Extent{x, y} {
				if e.Compressed {
					p.step = max(p.step, unit(e))
				}
			}
			if !yield(p, nil) {
				return
			}
			off += p.length
		}
	}
}

// at returns what is left of the run at off; beyond the disk's end, zeros without end.
func at(w *formats.Walk, off int64) (formats.Extent, error) {
	e, ok, err := w.At(off)
	if err == nil && !ok {
		e = formats.Extent{Offset: off, Length: math.MaxInt64 - off, Zero: true, HostOffset: -1}
	}
	return e, err
}
