package zvhd2

import (
	"context"
	"sync"
	"sync/atomic"

	"imgferry/bitmap"
	"imgferry/formats"

	"golang.org/x/sync/errgroup"
)

// Check does what opening does and then decodes every stored block, with that many workers (at least
// one): it proves that the whole file can be read. A stored block of zeros is legal, bytes behind
// the end of the disk in its last block are not.
//
// progress, unless nil, is told after each block how many are done, and how many there are; its
// calls don't overlap. Memory is the index, and 2 MiB, the longest chunk and a decoder for each
// worker. Check doesn't close src. Errors are those of Open.
func Check(ctx context.Context, src formats.Source, workers int, progress func(done, total int64)) error {
	t, index, err := load(ctx, src)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	im := newImage(ctx, src, t, index)
	defer im.cancel(nil)
	var (
		total = int64(t.stored)
		taken atomic.Int64
		mu    sync.Mutex // guards done and the calls of progress
		done  int64
	)
	for range max(workers, 1) {
		g.Go(func() error {
			dst := make([]byte, BlockSize)
			for k := taken.Add(1) - 1; k < total; k = taken.Add(1) - 1 {
				if err := im.check(dst, int(k)); err != nil {
					return err
				}
				if progress != nil {
					mu.Lock()
					done++
					progress(done, total)
					mu.Unlock()
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// check decodes chunk k into dst, which has BlockSize bytes.
func (im *image) check(dst []byte, k int) error {
	if err := im.decode(dst, k); err != nil {
		return err
	}
	c := im.index[k]
	if rest := im.size - int64(c.block)*BlockSize; rest < BlockSize && !bitmap.IsZero(dst[rest:]) {
		return formats.Corrupt(name, c.pos(), "block %d has data behind the end of the disk", c.block)
	}
	return nil
}
