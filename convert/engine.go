package convert

import (
	"context"
	"crypto/sha256"

	"golang.org/x/sync/errgroup"

	"imgferry/formats"
)

// slot is one unit of work and its buffers. The fixed number of slots is the memory bound, and
// waiting for a free one is the backpressure.
type slot struct {
	candidate
	block   []byte // room for the block's guest bytes
	encoded []byte
	empty   bool // it is left out of the target
	hash    bool // sum is wanted
	sum     [sha256.Size]byte
	done    chan struct{} // capacity 1: a worker never waits for the emitter
}

// engine runs one goroutine that names blocks, workers that work on them in any order, and one
// that takes them in order:
//
//	Candidates -> queue -> work (N goroutines) -> hash
//	           -> order -> emit (1 goroutine, waits for each slot) -> free
type engine struct {
	img     formats.Image
	workers int
	spare   int  // slots beyond one for each worker
	all     bool // look at every block
	// buffers gives a new slot what it needs.
	buffers func(*slot)
	// read fills a slot. It runs on the worker, or on the one producer of a sequential image.
	read func(formats.Image, *slot) error
	// work runs on the workers after read. Where it asks for the hash, s.block is left as it is until then.
	work func(context.Context, *slot) error
	// emit runs on one goroutine, in ascending order of index.
	emit func(*slot) error
}

// run returns when every goroutine has ended. The error is the first that occurred, or ctx's cause.
func (e *engine) run(parent context.Context) error {
	g, ctx := errgroup.WithContext(parent)
	slots := e.workers + e.spare
	free := make(chan *slot, slots)
	queue := make(chan *slot, slots)
	order := make(chan *slot, slots)
	// Slots get their buffers when they are first used: a small disk needs few.
	for range slots {
		free <- &slot{done: make(chan struct{}, 1)}
	}
	sequential := e.img.Sequential()
	hashes := hashing{lanes: hashLanes()}

	g.Go(func() error {
		defer close(queue)
		defer close(order)
		for c, err := range candidates(ctx, e.img, e.all) {
			if err != nil {
				return err
			}
			var s *slot
			select {
			case s = <-free:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			c.spans = append(s.spans[:0], c.spans...) // those of c change
			s.candidate = c
			if s.block == nil {
				e.buffers(s)
			}
			if sequential {
				if err := e.read(e.img, s); err != nil {
					return err
				}
			}
			// Neither send can block: both channels have room for every slot there is.
			order <- s
			queue <- s
		}
		return nil
	})
	for range e.workers {
		g.Go(func() error {
			for {
				s, ok := next(queue, &hashes)
				if !ok {
					return nil
				}
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				if !sequential {
					if err := e.read(e.img, s); err != nil {
						return err
					}
				}
				if err := e.work(ctx, s); err != nil {
					return err
				}
				if s.hash {
					hashes.add(s)
				} else {
					s.done <- struct{}{}
				}
			}
		})
	}
	g.Go(func() error {
		for s := range order {
			select {
			case <-s.done:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			if err := e.emit(s); err != nil {
				return err
			}
			free <- s
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		// Reads that were under way fail in their own words when the caller ends the run; what
		// the caller wants to know is its own reason.
		if parent.Err() != nil {
			return context.Cause(parent)
		}
		return err
	}
	// A caller may have cancelled after the last block was named: what came out is whole.
	return nil
}

// next takes a slot from the queue, and hashes what waits for that before it waits itself. ok is false at the end.
func next(queue <-chan *slot, hashes *hashing) (s *slot, ok bool) {
	select {
	case s, ok = <-queue:
	default:
	}
	if s == nil {
		hashes.flush()
		s, ok = <-queue
	}
	return s, ok
}
