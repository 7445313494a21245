package source

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
)

const (
	// pageSize is the unit of the cache in bytes: a table of most formats, and about what a request
	// costs anyway.
	pageSize = 64 << 10
	// cachePages bounds the pages that are kept: 16 MiB.
	cachePages = 256
	// maxAhead is the most that is fetched at once for one who reads on and on, in pages: 2 MiB.
	maxAhead = 32
	// maxRunners is how many places are remembered where a read may go on.
	maxRunners = 64
	// direct is from where on a read goes past the cache, in bytes: it is large enough to pay for its
	// own request, and nobody reads that much twice.
	direct = 256 << 10
	// maxObject is the largest object in bytes: 64 TiB, the largest disk.
	maxObject = 64 << 40
)

// Remote is an Object as a source: small reads go through a cache of pages and, where they go on and
// on, through a growing window; large ones are fetched as they are. All bytes are of one version. Its
// methods are safe for concurrent use. Its memory is 16 MiB and 2 MiB for each read under way.
type Remote struct {
	o        Object
	v        Version
	patience Patience
	ctx      context.Context
	cancel   context.CancelCauseFunc
	changed  atomic.Bool
	fetched  atomic.Int64
	ahead    sync.WaitGroup // fetches that nobody waits for yet

	mu      sync.Mutex
	pages   map[int64]*list.Element // of *cached
	recent  *list.List              // the last used first
	runners map[int64]int64         // from the page where a read ended to its window in pages
}

// cached is a page, or the promise of one.
type cached struct {
	number int64
	ready  chan struct{} // closed when data or err is there
	data   []byte
	err    error
	next   int64 // the window of the next run, to be fetched when this page is read; 0: no
	start  int64 // where that run begins
}

// OpenRemote finds out the object's size and version. ctx bounds every later read.
func OpenRemote(ctx context.Context, o Object, p Patience) (*Remote, error) {
	p = p.withDefaults()
	var v Version
	err := p.again(ctx, "look at "+o.Name(), func(ctx context.Context) error {
		return p.inTime(ctx, func(ctx context.Context) (err error) {
			v, err = o.Stat(ctx)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	if v.Size < 0 || v.Size > maxObject {
		return nil, fmt.Errorf("%s: a size of %d bytes: the most is %d", o.Name(), v.Size, int64(maxObject))
	}
	r := &Remote{o: o, v: v, patience: p, pages: map[int64]*list.Element{}, recent: list.New(), runners: map[int64]int64{}}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	return r, nil
}

// ReadAt reads as io.ReaderAt says. Errors name the object.
func (r *Remote) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("%s: negative offset %d", r.o.Name(), off)
	}
	if off >= r.v.Size {
		return 0, io.EOF
	}
	want := len(p)
	p = p[:min(int64(want), r.v.Size-off)]
	var n int
	var err error
	if len(p) >= direct {
		if err = r.get(p, off); err == nil {
			n = len(p)
		}
	} else {
		n, err = r.read(p, off)
	}
	if err == nil && n < want {
		err = io.EOF
	}
	return n, err
}

// get fetches one range.
func (r *Remote) get(p []byte, off int64) error {
	err := r.patience.fetch(r.ctx, r.o, r.v, p, off)
	if err == nil {
		r.fetched.Add(int64(len(p)))
		return nil
	}
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	if errors.Is(err, ErrChanged) {
		r.changed.Store(true)
	}
	return fmt.Errorf("%s: reading at %d: %w", r.o.Name(), off, err)
}

// read copies from pages.
func (r *Remote) read(p []byte, off int64) (n int, err error) {
	last := (off + int64(len(p)) - 1) / pageSize
	for n < len(p) {
		number := (off + int64(n)) / pageSize
		data, err := r.page(number, last)
		if err != nil {
			return n, err
		}
		n += copy(p[n:], data[(off+int64(n))%pageSize:])
	}
	return n, nil
}

// page returns a page. Up to last, the pages behind it are wanted too.
func (r *Remote) page(number, last int64) ([]byte, error) {
	r.mu.Lock()
	if e, ok := r.pages[number]; ok {
		r.recent.MoveToFront(e)
		c := e.Value.(*cached)
		start, window := c.start, c.next
		if c.next = 0; window > 0 && r.ctx.Err() == nil { // Close waits only for what began before it
			r.ahead.Go(func() { r.prefetch(start, window) })
		}
		r.mu.Unlock()
		<-c.ready
		return c.data, c.err
	}
	window := last - number + 1
	if w, ok := r.runners[number]; ok {
		delete(r.runners, number)
		window = max(window, min(2*w, maxAhead))
	}
	run := r.promise(number, window)
	r.mu.Unlock()
	r.fill(run)
	return run[0].data, run[0].err
}

// prefetch fetches a run that is likely to be read next.
func (r *Remote) prefetch(start, window int64) {
	r.mu.Lock()
	delete(r.runners, start)
	run := r.promise(start, window)
	r.mu.Unlock()
	r.fill(run)
}

// promise enters the pages from number on that are not there, up to window of them, and makes room.
func (r *Remote) promise(number, window int64) []*cached {
	var run []*cached
	for i := number; i < number+window && i*pageSize < r.v.Size; i++ {
		if _, ok := r.pages[i]; ok {
			break
		}
		c := &cached{number: i, ready: make(chan struct{})}
		r.pages[i] = r.recent.PushFront(c)
		run = append(run, c)
	}
	if len(run) == 0 {
		return nil
	}
	next := number + int64(len(run))
	if len(run) >= maxAhead/2 { // whoever reads that much reads on
		run[1].start, run[1].next = next, maxAhead
	}
	if len(r.runners) >= maxRunners {
		for old := range r.runners {
			delete(r.runners, old)
			break
		}
	}
	r.runners[next] = int64(len(run))
	for r.recent.Len() > cachePages {
		e := r.recent.Back()
		r.recent.Remove(e)
		delete(r.pages, e.Value.(*cached).number)
	}
	return run
}

// fill keeps the promise. Pages that could not be fetched are forgotten, so that whoever asks again
// makes another request.
func (r *Remote) fill(run []*cached) {
	if len(run) == 0 {
		return
	}
	off := run[0].number * pageSize
	data := make([]byte, min(int64(len(run))*pageSize, r.v.Size-off))
	err := r.get(data, off)
	if err != nil {
		r.mu.Lock()
		for _, c := range run {
			if e, ok := r.pages[c.number]; ok && e.Value == c {
				r.recent.Remove(e)
				delete(r.pages, c.number)
			}
		}
		r.mu.Unlock()
	}
	for _, c := range run {
		if c.err = err; err == nil {
			// A copy, so that one page that is kept does not keep the others.
			c.data = append([]byte(nil), data[:min(pageSize, len(data))]...)
			data = data[len(c.data):]
		}
		close(c.ready)
	}
}

// Close ends reads under way; they and later ones fail with os.ErrClosed.
func (r *Remote) Close() error {
	r.mu.Lock()
	r.cancel(fmt.Errorf("%s: %w", r.o.Name(), os.ErrClosed))
	r.mu.Unlock()
	r.ahead.Wait()
	return nil
}

// Size is the object's length in bytes.
func (r *Remote) Size() int64 { return r.v.Size }

// Path is the object's name as messages spell it.
func (r *Remote) Path() string { return r.o.Name() }

// Version is the version that is read.
func (r *Remote) Version() Version { return r.v }

// Identity is the object's name and version; "" if its server tells versions apart by nothing but their size.
func (r *Remote) Identity() string {
	if r.v.ETag == "" && r.v.Modified == "" {
		return ""
	}
	return fmt.Sprintf("%s size=%d etag=%s modified=%s", r.o.Name(), r.v.Size, r.v.ETag, r.v.Modified)
}

// Allocated is the object's size in bytes.
func (r *Remote) Allocated() int64 { return r.v.Size }

// Fetched is how many bytes of content have arrived so far.
func (r *Remote) Fetched() int64 { return r.fetched.Load() }

// Changed asks whether the object is another one by now. Every read has made sure of that too.
func (r *Remote) Changed() (bool, error) {
	if r.changed.Load() {
		return true, nil
	}
	var now Version
	err := r.patience.again(r.ctx, "look at "+r.o.Name(), func(ctx context.Context) error {
		return r.patience.inTime(ctx, func(ctx context.Context) (err error) {
			now, err = r.o.Stat(ctx)
			return err
		})
	})
	return err == nil && now != r.v, err
}
