package convert

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"

	"imgferry/bitmap"
	"imgferry/formats"
)

const (
	// rawStep is how much a worker reads and writes at a time, in bytes. Larger steps are slower:
	// the copy then falls out of the caches (measured: 512 KiB best of 64 KiB to 4 MiB). Compressed
	// images are read by whole blocks all the same: their clusters have up to 2 MiB, and a part of
	// one costs as much as all of it.
	rawStep = 512 << 10
	// rawHole is the unit in which zeros become holes, in bytes: a page, and the block of the file
	// systems in use.
	rawHole = 4096
)

// RawTarget is what a raw disk is written to: a new file, whose unwritten parts read as zeros.
type RawTarget interface {
	WriteAt(p []byte, off int64) (int, error)
	Truncate(size int64) error
}

// Raw writes img's guest bytes to t, whose length becomes the virtual size. Zeros are not written.
func Raw(ctx context.Context, img formats.Image, t RawTarget, o Options) (Result, error) {
	if err := CheckSize(img); err != nil {
		return Result{}, err
	}
	if err := t.Truncate(img.Size()); err != nil {
		return Result{}, err
	}
	step := rawStep
	if compressed(ctx, img) {
		step = BlockSize
	}
	c := newCollector(img.Size(), o)
	e := engine{
		img:     img,
		workers: o.workers(),
		buffers: func(s *slot) { s.block = make([]byte, step) },
		read:    func(formats.Image, *slot) error { return nil }, // work reads, step by step
		work: func(ctx context.Context, s *slot) error {
			return rawBlock(ctx, img, t, s, o.Digest)
		},
		emit: func(s *slot) error { c.add(s); return nil },
	}
	if img.Sequential() {
		// Only the one producer may read.
		e.read = func(_ formats.Image, s *slot) error { return rawBlock(ctx, img, t, s, o.Digest) }
		e.work = func(context.Context, *slot) error { return nil }
	}
	if err := e.run(ctx); err != nil {
		return Result{}, err
	}
	return c.result(), nil
}

// compressed says that the first data of img is stored compressed, and so, mostly, is the rest.
func compressed(ctx context.Context, img formats.Image) bool {
	for x, err := range img.Extents(ctx) {
		if err != nil || !x.Zero {
			return x.Compressed
		}
	}
	return false
}

// rawBlock copies block s.index in steps of len(s.block), and notes whether it is zero and its hash.
func rawBlock(ctx context.Context, img formats.Image, t RawTarget, s *slot, digest bool) error {
	s.zero = true
	var h hash.Hash
	if digest {
		h = sha256.New()
	}
	start := s.index * BlockSize
	step := int64(len(s.block))
	for off := start; off < start+BlockSize; off += step {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n := max(0, min(step, img.Size()-off))
		clear(s.block[n:])
		if n > 0 {
			if err := formats.ReadFull(img, s.block[:n], off); err != nil {
				return fmt.Errorf("reading the disk at %d: %w", off, err)
			}
			wrote, err := writeData(t, s.block[:n], off)
			if err != nil {
				return err
			}
			s.zero = s.zero && !wrote
		}
		if h != nil {
			h.Write(s.block)
		}
	}
	if h != nil && !s.zero {
		h.Sum(s.sum[:0])
	}
	return nil
}

// writeData writes the runs of p that are not zero, in units of rawHole, and says whether there
// were any.
func writeData(t RawTarget, p []byte, off int64) (wrote bool, err error) {
	for i := 0; i < len(p); {
		if bitmap.IsZero(p[i:min(i+rawHole, len(p))]) {
			i += rawHole
			continue
		}
		j := i + rawHole
		for j < len(p) && !bitmap.IsZero(p[j:min(j+rawHole, len(p))]) {
			j += rawHole
		}
		j = min(j, len(p))
		if _, err := t.WriteAt(p[i:j], off+int64(i)); err != nil {
			return wrote, err
		}
		wrote = true
		i = j
	}
	return wrote, nil
}
