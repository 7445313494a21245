package mapped

import (
	"context"
	"io"
	"os"
	"sync"

	"imgferry/formats"
)

// Reader reads an image's file on behalf of its table. Its reads fail with the cause once the
// image was closed or its context has ended.
type Reader struct {
	ctx    context.Context // ends with the caller's, or with os.ErrClosed at Close
	cancel context.CancelCauseFunc
	format string
	src    formats.Source
}

// NewReader returns a Reader of src for an image of the format called format. It must be handed to
// New, whose image ends it, and therefore is to be made after all that can fail.
func NewReader(ctx context.Context, format string, src formats.Source) *Reader {
	r := &Reader{format: format, src: src}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	return r
}

// Sibling returns a Reader of another file of the same image; it ends with r.
func (r *Reader) Sibling(src formats.Source) *Reader {
	s := *r
	s.src = src
	return &s
}

func (r *Reader) end() { r.cancel(os.ErrClosed) }

// Size is the file's size in bytes.
func (r *Reader) Size() int64 { return r.src.Size() }

// Err is why reads have ended: os.ErrClosed, the cause of the context, or nil.
func (r *Reader) Err() error {
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	return nil
}

// Cause returns err, or why reads have ended if they have: closing and cancellation end reads under
// way, and whatever they fail with then means nothing. nil stays nil.
func (r *Reader) Cause(err error) error {
	if end := r.Err(); err != nil && end != nil {
		return end
	}
	return err
}

// Holes returns what finds the file's holes, for one goroutine.
func (r *Reader) Holes() *formats.Holes { return formats.NewHoles(r.ctx, r.format, r.src) }

// Read fills p from off of the file. what names it in errors: "an L2 table".
func (r *Reader) Read(p []byte, off int64, what string) error {
	_, err := r.read(p, off, what)
	return err
}

// read is Read, and returns how many bytes are good.
func (r *Reader) read(p []byte, off int64, what string) (int, error) {
	n, err := r.src.ReadAt(p, off)
	if n == len(p) {
		return n, nil
	}
	if end := r.Err(); end != nil {
		return n, end
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, formats.ReadFailed(r.format, off+int64(n), what, err)
}

// buffers hold compressed bytes on their way to the decoder.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// With calls use with the n bytes at off of the file, which are only valid during the call. The
// caller has bounded n.
func (r *Reader) With(off, n int64, what string, use func([]byte) error) error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	if int64(cap(*buf)) < n {
		*buf = make([]byte, n)
	}
	p := (*buf)[:n]
	if err := r.Read(p, off, what); err != nil {
		return err
	}
	return use(p)
}
