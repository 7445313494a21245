package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

const (
	// headSize is how much of the front of a stream is kept, in bytes: what tells formats apart.
	headSize = 1 << 20
	// recentSize is how much of what was unpacked last is kept, in bytes, and how much of the end. The
	// index of a ZVHD2 file of 512 GiB has as much.
	recentSize = 4 << 20
	// maxRewinds is how often a stream is begun again before it is rather unpacked to disk.
	maxRewinds = 4
)

// UnpackLimits bound what comes out of a packed file. A zero field means its default.
type UnpackLimits struct {
	// Size is the most that may be in it, in bytes. Default 2 TiB.
	Size int64
	// Spill is the most that is written to a temporary file, in bytes, zeros not counted. Default 64 GiB.
	Spill int64
	// Dir is where temporary files are made; "": $TMPDIR, else /var/tmp or what the system has.
	Dir string
	// Notice is told of what takes long or room; nil: nobody is.
	Notice func(string)
}

func (l UnpackLimits) withDefaults() UnpackLimits {
	if l.Size <= 0 {
		l.Size = 2 << 40
	}
	if l.Spill <= 0 {
		l.Spill = 64 << 30
	}
	if l.Notice == nil {
		l.Notice = func(string) {}
	}
	return l
}

// Packed is what Unpack takes: a source with a name.
type Packed interface {
	io.ReaderAt
	io.Closer
	Size() int64
	Identity() string
	Path() string
}

// Stream is what is in a packed file, without a copy of it: whoever reads front to back reads it as it
// is unpacked. To go back is to begin again; who does so often gets it unpacked to a temporary file
// after all. One reads at a time, others wait.
type Stream struct {
	src     Packed
	packing Packing
	limits  UnpackLimits
	ctx     context.Context
	cancel  context.CancelCauseFunc
	size    int64

	mu      sync.Mutex
	in      *unpacker // nil: not begun, or at its end
	pos     int64     // of in
	head    []byte    // the first bytes
	recent  ring      // the last ones before pos
	tail    []byte    // the last ones of all; nil: not known
	rewinds int
	spilled *File
}

// Unpack opens what is in src, which is packed that way. It takes ownership of src only if it returns
// no error. Where only that tells its size, it unpacks all of it once. ctx bounds every later read.
func Unpack(ctx context.Context, src Packed, packing Packing, limits UnpackLimits) (*Stream, error) {
	s := &Stream{src: src, packing: packing, limits: limits.withDefaults()}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	if err := s.measure(); err != nil {
		s.cancel(nil)
		return nil, err
	}
	return s, nil
}

// measure finds the size. The headers of an .xz file say it; of the others all is unpacked.
func (s *Stream) measure() error {
	if s.packing == XZ {
		s.limits.Notice(fmt.Sprintf("%s: reading it once (xz) to find out its size", s.src.Path()))
		in := &noting{ctx: s.ctx, r: io.NewSectionReader(s.src, 0, s.src.Size())}
		guard := newXZGuard(newBuffered(in))
		_, err := io.Copy(io.Discard, guard)
		u := unpacker{packing: XZ, in: in}
		if s.size = guard.unpacked; err == nil && s.size > s.limits.Size {
			return s.tooLarge()
		}
		if err == nil && s.size == 0 {
			// No read will come that ends where it is proved.
			_, err = s.advance(0, nil)
			return err
		}
		return u.explain(err)
	}
	s.limits.Notice(fmt.Sprintf("%s: unpacking it once (%s) to find out its size", s.src.Path(), s.packing))
	s.size = s.limits.Size + 1 // for advance; known at the end
	n, err := s.advance(s.size, nil)
	if err == nil && n > s.limits.Size {
		return s.tooLarge()
	}
	s.size = n
	return err
}

func (s *Stream) tooLarge() error {
	return fmt.Errorf("%w: %d bytes", ErrTooLarge, s.limits.Size)
}

// advance unpacks up to the byte before end, or to the end of all, and calls use with what comes, which is
// valid until the next. It returns where it is then.
func (s *Stream) advance(end int64, use func(p []byte, off int64) error) (int64, error) {
	if s.in == nil {
		in, err := unpack(s.ctx, s.src, s.src.Size(), s.packing)
		if err != nil {
			return 0, err
		}
		s.in, s.pos = in, 0
		s.recent.clear()
	}
	buf := make([]byte, 64<<10)
	for s.pos < end {
		n, err := s.in.Read(buf[:min(int64(len(buf)), end-s.pos)])
		p := buf[:n]
		if s.pos < headSize && int64(len(s.head)) == s.pos {
			s.head = append(s.head, p[:min(n, int(headSize-s.pos))]...)
		}
		s.recent.add(p)
		s.pos += int64(n)
		if use != nil && n > 0 {
			if err := use(p, s.pos-int64(n)); err != nil {
				return s.pos, err
			}
		}
		if err == io.EOF {
			s.tail = s.recent.bytes()
			s.stop()
			return s.pos, nil
		}
		if err != nil {
			s.stop()
			return 0, err
		}
	}
	if s.pos == s.size {
		return s.pos, s.finish()
	}
	return s.pos, nil
}

// finish makes sure that nothing follows the last byte but what proves the others.
func (s *Stream) finish() error {
	defer s.stop()
	n, err := io.ReadFull(s.in, make([]byte, 1))
	switch {
	case n > 0 && s.size > s.limits.Size:
		return s.tooLarge()
	case n > 0:
		return fmt.Errorf("%w (%s): more comes out than the %d bytes that its headers say", ErrCorrupt, s.packing, s.size)
	case err != io.EOF:
		return err
	}
	s.tail = s.recent.bytes()
	return nil
}

// stop ends the unpacker. The next read begins again.
func (s *Stream) stop() {
	if s.in != nil {
		s.in.close()
		s.in = nil
	}
}

// ReadAt reads as io.ReaderAt says.
func (s *Stream) ReadAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return 0, context.Cause(s.ctx)
	}
	if off < 0 {
		return 0, fmt.Errorf("%s: negative offset %d", s.Path(), off)
	}
	if off >= s.size {
		return 0, io.EOF
	}
	want := len(p)
	p = p[:min(int64(want), s.size-off)]
	n, err := s.read(p, off)
	if err != nil {
		return n, err
	}
	if n < want {
		err = io.EOF
	}
	return n, err
}

func (s *Stream) read(p []byte, off int64) (int, error) {
	end := off + int64(len(p))
	switch tail := s.size - int64(len(s.tail)); {
	case s.spilled != nil:
		return s.spilled.ReadAt(p, off)
	case end <= int64(len(s.head)):
		return copy(p, s.head[off:]), nil
	case s.tail != nil && off >= tail:
		return copy(p, s.tail[off-tail:]), nil
	}
	if s.in == nil || off < s.pos-int64(s.recent.length()) {
		if s.rewinds++; s.rewinds > maxRewinds {
			if err := s.spill(); err != nil {
				return 0, err
			}
			return s.spilled.ReadAt(p, off)
		}
		s.stop()
	}
	n := 0
	if s.in != nil && off < s.pos {
		n = s.recent.copyTo(p, s.pos-off)
	}
	pos, err := s.advance(end, func(q []byte, at int64) error {
		if skip := off + int64(n) - at; skip < int64(len(q)) {
			n += copy(p[n:], q[max(skip, 0):])
		}
		return nil
	})
	if err == nil && pos < end {
		err = fmt.Errorf("%w (%s): its headers say %d bytes, %d come out", ErrCorrupt, s.packing, s.size, pos)
	}
	return n, err
}

// Spill unpacks all of it to a temporary file, for those who read here and there.
func (s *Stream) Spill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spilled != nil {
		return nil
	}
	return s.spill()
}

// Packing is how the file is packed.
func (s *Stream) Packing() Packing { return s.packing }

// NextData is that of the temporary file, if there is one; else all is data.
func (s *Stream) NextData(off int64) (start, end int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spilled != nil {
		return s.spilled.NextData(off)
	}
	return off, s.size, nil
}

// Close ends reads under way, closes the packed source and removes the temporary file.
func (s *Stream) Close() error {
	s.cancel(fmt.Errorf("%s: %w", s.Path(), os.ErrClosed))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop()
	err := s.src.Close()
	if s.spilled != nil {
		err = errors.Join(err, discard(s.spilled))
	}
	return err
}

// Size is how much is in it, in bytes.
func (s *Stream) Size() int64 { return s.size }

// Path is the packed file's name.
func (s *Stream) Path() string { return s.src.Path() }

// Identity is that of the packed file; "" if that has none.
func (s *Stream) Identity() string {
	packed := s.src.Identity()
	if packed == "" {
		return ""
	}
	return packed + " in=" + string(s.packing)
}

// ring keeps the last recentSize bytes.
type ring struct {
	b    []byte
	next int
}

func (r *ring) clear()      { r.b, r.next = r.b[:0], 0 }
func (r *ring) length() int { return len(r.b) }

func (r *ring) add(p []byte) {
	if grow := min(recentSize-len(r.b), len(p)); grow > 0 {
		r.b = append(r.b, p[:grow]...)
		p = p[grow:]
	}
	for len(p) > 0 { // it is full: next is the oldest
		n := copy(r.b[r.next:], p)
		r.next = (r.next + n) % recentSize
		p = p[n:]
	}
}

// copyTo copies from back bytes before the end, at most length, and returns how much.
func (r *ring) copyTo(p []byte, back int64) int {
	from := len(r.b) - int(back)
	if len(r.b) == recentSize {
		from = (r.next + recentSize - int(back)) % recentSize
	}
	p = p[:min(int64(len(p)), back)]
	n := copy(p, r.b[from:])
	return n + copy(p[n:], r.b)
}

// bytes is a copy of what it holds, in order.
func (r *ring) bytes() []byte {
	p := make([]byte, len(r.b))
	r.copyTo(p, int64(len(p)))
	return p
}

// Spilled reports whether all of it was unpacked to a temporary file.
func (s *Stream) Spilled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.spilled != nil
}

// Packed is the packed file.
func (s *Stream) Packed() Packed { return s.src }
