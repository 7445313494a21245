package upload

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
)

// Part is one part of an object, in the order of its number.
type Part struct {
	// Number counts from 1 without gaps.
	Number int
	// Size is the exact length of Body in bytes.
	Size int64
	// Body yields the part's bytes. It is rewound to its start before each attempt.
	Body io.ReadSeeker
	// Buffered says that Body is in memory: it is then hashed before it is sent, so that the store
	// can refuse a damaged body, instead of while it is sent.
	Buffered bool
	// Sum is the MD5 of Body where it is known beforehand, else nil.
	Sum *[md5.Size]byte
	// Zeros says that the part has nothing but zeros: a store that can copies them, from an object
	// of zeros, and Body is only read where it can't.
	Zeros bool
	// Level and Chunks are for the journal: how the part was made, and of what.
	Level  uint8
	Chunks []Chunk
	// Known, if not nil, is what the journal knows of a part that the store has (Config.Resume). Body
	// is then nil.
	Known *JournalPart
	// Release, if not nil, is called once, when nothing reads Body any more.
	Release func()
}

func (p Part) release() {
	if p.Release != nil {
		p.Release()
	}
}

// Sequence yields an object's parts in order. An error ends it; ending without an error means
// that the object is whole. It gives up when ctx ends.
type Sequence func(ctx context.Context) iter.Seq2[Part, error]

// PartWriter packs a stream of chunks into parts. A chunk is what one Write brings; it never
// spans two parts, so that any part can be produced again on its own. The fixed set of buffers
// bounds the memory, and waiting for a free one is the backpressure.
//
// Write, Close and Fail belong to one goroutine. Parts belongs to another.
type PartWriter struct {
	ctx  context.Context
	plan Plan
	free chan []byte // as many as the plan has buffers; nil: not allocated yet
	full chan Part

	buf    []byte // the part under way, or nil
	level  uint8
	chunks []Chunk // of the part under way
	number int     // of the part emitted last
	size   int64   // of all parts emitted, bytes
	err    error   // sticky; read by Parts after full was closed
	closed bool
}

var errClosed = errors.New("write after the end of the upload")

// NewPartWriter returns a writer with the buffers of p, each allocated when first needed. When
// ctx ends, a blocked Write returns its cause.
func NewPartWriter(ctx context.Context, p Plan) *PartWriter {
	w := &PartWriter{
		ctx:  ctx,
		plan: p,
		free: make(chan []byte, p.Buffers),
		full: make(chan Part, p.Buffers),
	}
	for range p.Buffers {
		w.free <- nil
	}
	return w
}

// Write adds one chunk of at most MaxChunk bytes, whole or not at all. It blocks while every
// buffer is taken. Errors are sticky.
func (w *PartWriter) Write(chunk []byte) (int, error) {
	if w.closed && w.err == nil {
		return 0, errClosed
	}
	if w.err == nil {
		w.err = w.write(chunk)
	}
	if w.err != nil {
		return 0, w.err
	}
	return len(chunk), nil
}

func (w *PartWriter) write(chunk []byte) error {
	if len(chunk) == 0 {
		return nil
	}
	if len(chunk) > MaxChunk {
		return fmt.Errorf("a chunk of %d bytes does not fit into a part: the limit is %d", len(chunk), MaxChunk)
	}
	if w.buf == nil {
		if w.number == MaxParts {
			return fmt.Errorf("the stream is longer than planned: it does not fit into %d parts of %d bytes", MaxParts, w.plan.PartSize)
		}
		if err := w.take(); err != nil {
			return err
		}
	}
	w.buf = append(w.buf, chunk...) // there is room: the part is below PartSize
	if int64(len(w.buf)) >= w.plan.PartSize {
		return w.emit()
	}
	return nil
}

// Load says how the buffers are: full ones that wait to be sent, and free ones. Many full ones mean that
// the link is slower than whoever writes, many free ones that it is faster.
func (w *PartWriter) Load() (full, free, all int) { return len(w.full), len(w.free), w.plan.Buffers }

// AtStart says that no part is under way: the next chunk begins one.
func (w *PartWriter) AtStart() bool { return w.buf == nil }

// Number returns the number of the part under way, or of the one that the next chunk begins.
func (w *PartWriter) Number() int { return w.number + 1 }

// Size returns the size of the parts so far in bytes, without the one under way: after Close, the object's.
func (w *PartWriter) Size() int64 { return w.size }

// Note adds to what the journal keeps of the part that the next Write goes into: the chunk that Write
// brings. level is how the whole part is encoded.
func (w *PartWriter) Note(c Chunk, level uint8) {
	w.chunks = append(w.chunks, c)
	w.level = level
}

// Known adds a part that the store has, instead of the Writes that would make it. It fails with
// ErrJournal where that part's place is not. Errors are sticky.
func (w *PartWriter) Known(p JournalPart) error {
	if w.closed && w.err == nil {
		return errClosed
	}
	if w.err == nil && (w.buf != nil || len(w.chunks) > 0 || p.Number != w.Number()) {
		w.err = fmt.Errorf("%w: part %d would begin in part %d", ErrJournal, p.Number, w.Number())
	}
	if w.err == nil {
		w.err = w.send(Part{Number: p.Number, Size: p.Size, Known: &p})
	}
	return w.err
}

// send counts the part and hands it over.
func (w *PartWriter) send(p Part) error {
	w.number++
	w.size += p.Size
	select {
	case w.full <- p:
		return nil
	case <-w.ctx.Done():
		p.release()
		return context.Cause(w.ctx)
	}
}

func (w *PartWriter) take() error {
	select {
	case w.buf = <-w.free:
	case <-w.ctx.Done():
		return context.Cause(w.ctx)
	}
	if w.buf == nil {
		w.buf = make([]byte, 0, w.plan.BufferSize)
	}
	return nil
}

func (w *PartWriter) emit() error {
	buf := w.buf
	p := Part{
		Number:   w.Number(),
		Size:     int64(len(buf)),
		Body:     bytes.NewReader(buf),
		Buffered: true,
		Level:    w.level,
		Chunks:   w.chunks,
		Release:  sync.OnceFunc(func() { w.free <- buf[:0] }),
	}
	w.buf, w.chunks, w.level = nil, nil, 0
	return w.send(p)
}

// Close ends the stream: the rest becomes the last part, and the sequence of parts ends. After a
// failed Write it returns that error, and so does the sequence. Later calls change nothing.
func (w *PartWriter) Close() error {
	if !w.closed {
		if w.err == nil && w.buf != nil {
			w.err = w.emit()
		}
		w.end(w.err)
	}
	return w.err
}

// Fail ends the stream with the failure of whoever produces it: the sequence of parts yields err,
// so that nobody takes what was written for the whole. After Close it changes nothing.
func (w *PartWriter) Fail(err error) {
	if !w.closed {
		w.end(err)
	}
}

func (w *PartWriter) end(err error) {
	w.err = err
	w.closed = true
	close(w.full)
}

// Parts yields the parts as they fill. It is a Sequence that can be used once.
func (w *PartWriter) Parts(ctx context.Context) iter.Seq2[Part, error] {
	return func(yield func(Part, error) bool) {
		for {
			select {
			case part, ok := <-w.full:
				if !ok {
					if w.err != nil {
						yield(Part{}, w.err)
					}
					return
				}
				if !yield(part, nil) {
					return
				}
			case <-ctx.Done():
				yield(Part{}, context.Cause(ctx))
				return
			}
		}
	}
}
