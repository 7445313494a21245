package objectstore

import (
	"context"
	"crypto/md5"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
	"sync"
	"time"
)

// Object is an open object. It reads the bytes it was opened with even when the object is
// overwritten or deleted meanwhile. Its methods are safe for concurrent use. Segments are opened
// for each read, so that an object of 10,000 parts holds no file open.
type Object struct {
	store  *Store
	rec    *object
	ends   []int64 // ends[i] is where run i ends
	closed sync.Once
}

// OpenObject opens an object for reading in this process. It fails with ErrNoSuchBucket or
// ErrNoSuchKey. The caller must Close it, or its segments stay on disk until the store is opened
// again.
func (s *Store) OpenObject(bucket, key string) (*Object, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b, ok := s.buckets[bucket]
	if !ok {
		return nil, ErrNoSuchBucket
	}
	o := b.object(key)
	if o == nil {
		return nil, ErrNoSuchKey
	}
	s.segments.hold(o.Content)
	ends := make([]int64, len(o.Content))
	var end int64
	for i, r := range o.Content {
		end += r.Length
		ends[i] = end
	}
	return &Object{store: s, rec: o, ends: ends}, nil
}

// Size returns the length in bytes.
func (o *Object) Size() int64 { return o.rec.Size }

// ETag returns the ETag without quotes.
func (o *Object) ETag() string { return o.rec.ETag }

// Modified returns when the object was made, in UTC.
func (o *Object) Modified() time.Time { return o.rec.Modified }

// Identity changes whenever the bytes may have changed.
func (o *Object) Identity() string {
	return fmt.Sprintf("%d %s %d", o.rec.Size, o.rec.ETag, o.rec.Modified.UnixMilli())
}

// Metadata returns a copy of the user metadata. Names are lower-case, without x-amz-meta-.
func (o *Object) Metadata() map[string]string {
	m := make(map[string]string)
	for name, v := range o.rec.Header {
		if name, ok := strings.CutPrefix(name, metaPrefix); ok {
			m[name] = v
		}
	}
	return m
}

// Close lets go of the object's segments.
func (o *Object) Close() error {
	var err error
	o.closed.Do(func() { err = o.store.segments.release(o.rec.Content) })
	return err
}

// runAt returns the index of the run that holds off, and where that run begins.
func (o *Object) runAt(off int64) (i int, start int64) {
	i = sort.Search(len(o.ends), func(i int) bool { return o.ends[i] > off })
	if i < len(o.ends) {
		start = o.ends[i] - o.rec.Content[i].Length
	}
	return i, start
}

// ReadAt follows io.ReaderAt.
func (o *Object) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("reading object at negative offset %d", off)
	}
	i, start := o.runAt(off)
	for ; n < len(p) && i < len(o.ends); i++ {
		r := o.rec.Content[i]
		in := off + int64(n) - start
		q := p[n : n+int(min(int64(len(p)-n), r.Length-in))]
		if err := o.readRun(r, q, in); err != nil {
			return n, err
		}
		n += len(q)
		start = o.ends[i]
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (o *Object) readRun(r run, p []byte, off int64) error {
	if r.isZero() {
		clear(p)
		return nil
	}
	f, err := os.Open(o.store.segments.path(r.Segment))
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.ReadAt(p, r.Offset+off); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF // the record says that there is more
		}
		return fmt.Errorf("reading segment: %w", err)
	}
	return nil
}

// NextData returns the first run [start, end) of the object at or after off that may hold data, in
// bytes, or Size twice if only zeros follow.
func (o *Object) NextData(off int64) (start, end int64, err error) {
	off = max(off, 0)
	for i, begin := o.runAt(off); i < len(o.ends); i++ {
		start, end, ok, err := o.dataInRun(o.rec.Content[i], max(off-begin, 0))
		if err != nil {
			return 0, 0, err
		}
		if ok {
			return begin + start, begin + end, nil
		}
		begin = o.ends[i]
	}
	return o.Size(), o.Size(), nil
}

// dataInRun returns the first run of data at or after off in r, both relative to r's start.
func (o *Object) dataInRun(r run, off int64) (start, end int64, ok bool, err error) {
	if r.isZero() {
		return 0, 0, false, nil
	}
	f, err := os.Open(o.store.segments.path(r.Segment))
	if err != nil {
		return 0, 0, false, err
	}
	defer f.Close()
	start, end, ok, err = nextData(f, r.Offset+off)
	start, end = start-r.Offset, min(end-r.Offset, r.Length)
	return start, end, ok && start < end, err
}

// writeTo sends n bytes from off on. progress is called before each piece of at most 4 MiB.
func (o *Object) writeTo(w io.Writer, off, n int64, progress func()) error {
	const piece = 4 << 20
	i, start := o.runAt(off)
	for ; n > 0 && i < len(o.ends); i++ {
		m := min(n, o.ends[i]-off)
		src, err := o.openRun(o.rec.Content[i], off-start, m)
		if err != nil {
			return err
		}
		for left := m; left > 0 && err == nil; {
			progress()
			var k int64
			k, err = io.CopyN(w, src, min(left, piece))
			left -= k
		}
		src.Close()
		if err != nil {
			return err
		}
		off, n, start = off+m, n-m, o.ends[i]
	}
	return nil
}

// openRun opens n bytes of a run for reading in order. For data it is the file itself, so that the
// kernel can send it.
func (o *Object) openRun(r run, off, n int64) (io.ReadCloser, error) {
	if r.isZero() {
		return io.NopCloser(zeroReader{}), nil
	}
	f, err := os.Open(o.store.segments.path(r.Segment))
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(r.Offset+off, io.SeekStart); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// zeroReader is an endless run of zeros.
type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// sum returns the MD5 of n bytes from off on, until ctx ends.
func (o *Object) sum(ctx context.Context, off, n int64) (sum [md5.Size]byte, err error) {
	if c := o.rec.Content.cut(off, n); len(c) == 1 && c[0].isZero() {
		return o.store.zeros.sum(n), nil
	}
	h := md5.New()
	buf := buffers.Get().(*[copyBuffer]byte)
	defer buffers.Put(buf)
	for end := off + n; off < end; {
		if err := ctx.Err(); err != nil {
			return sum, err
		}
		p := buf[:min(int64(len(buf)), end-off)]
		if _, err := o.ReadAt(p, off); err != nil {
			return sum, err
		}
		h.Write(p)
		off += int64(len(p))
	}
	h.Sum(sum[:0])
	return sum, nil
}
