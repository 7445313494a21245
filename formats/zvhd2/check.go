package zvhd2

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"imgferry/bitmap"
	"imgferry/formats"
	"imgferry/formats/hwstream"

	"golang.org/x/sync/errgroup"
)

// structure is formats.Format's Check: footers, index and bitmap, and the frame of every chunk.
// Payloads are not read: Check decodes them.
func structure(ctx context.Context, src formats.Source, found func(formats.Finding)) (formats.Checked, error) {
	var checked formats.Checked
	// note makes a finding of what the image is to blame for.
	note := func(err error) error {
		var fault *formats.Error
		if !errors.As(err, &fault) || !errors.Is(err, formats.ErrCorrupt) {
			return err
		}
		found(formats.Finding{Offset: fault.Offset, What: fault.What})
		return nil
	}
	t, index, err := load(ctx, src)
	if err != nil {
		return checked, note(err)
	}
	checked = formats.Checked{
		Clusters: int64(t.maxBlocks), Allocated: int64(t.stored), Compressed: int64(t.stored), End: src.Size(),
	}
	var head [hwstream.HeadSize]byte
	var postfix [len(hwstream.Postfix)]byte
	for k, c := range index[:index.Stored()] {
		length := index.Length(k)
		if err := formats.ReadAt(ctx, name, src, head[:], c.Pos(), "a chunk's head"); err != nil {
			return checked, err
		}
		if err := formats.ReadAt(ctx, name, src, postfix[:], c.Pos()+length-int64(len(postfix)), "a chunk's end"); err != nil {
			return checked, err
		}
		if _, err := hwstream.CheckFrame(name, head[:], postfix[:], length, c.Pos(), c.Block); err != nil {
			if err := note(err); err != nil {
				return checked, err
			}
		}
	}
	return checked, nil
}

// Check does what opening does and then decodes every stored block, with that many workers (at least
// one): it proves that the whole file can be read. A stored block of zeros is legal, bytes behind
// the end of the disk in its last block are not.
//
// progress, unless nil, is told after each block how many are done, and how many there are; its
// calls don't overlap. Memory is the index, and 2 MiB, the longest chunk and a decoder for each
// worker. Check doesn't close src. Errors are those of Open.
func Check(ctx context.Context, src formats.Source, workers int, progress func(done, total int64)) error {
	f, index, err := load(ctx, src)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	t := newTable(ctx, src, f, index) // ends with ctx, which Wait ends
	var (
		total = int64(f.stored)
		taken atomic.Int64
		mu    sync.Mutex // guards done and the calls of progress
		done  int64
	)
	for range max(workers, 1) {
		g.Go(func() error {
			dst := make([]byte, BlockSize)
			for k := taken.Add(1) - 1; k < total; k = taken.Add(1) - 1 {
				if err := t.check(dst, int(k)); err != nil {
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
func (t *table) check(dst []byte, k int) error {
	if err := t.decode(dst, k); err != nil {
		return err
	}
	c := t.Index[k]
	if rest := t.size - int64(c.Block)*BlockSize; rest < BlockSize && !bitmap.IsZero(dst[rest:]) {
		return formats.Corrupt(name, c.Pos(), "block %d has data behind the end of the disk", c.Block)
	}
	return nil
}
