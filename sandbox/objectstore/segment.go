package objectstore

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"imgferry/bitmap"
)

const (
	// holeUnit is the granularity of holes in bytes: the block of the usual file systems.
	holeUnit = 4 << 10
	// copyBuffer is how many bytes of a body are read at a time, a multiple of holeUnit.
	copyBuffer = 256 << 10
)

var buffers = sync.Pool{New: func() any { return new([copyBuffer]byte) }}

// segmentID names a file in segments/. The zero value stands for zeros, which need no file.
type segmentID [16]byte

// MarshalText returns the file's name.
func (id segmentID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, id[:]), nil }

// UnmarshalText parses a file's name.
func (id *segmentID) UnmarshalText(p []byte) error {
	if hex.DecodedLen(len(p)) != len(id) {
		return fmt.Errorf("%.40q is no segment", p)
	}
	_, err := hex.Decode(id[:], p)
	return err
}

// run is a piece of a segment, or of endless zeros. Bytes.
type run struct {
	Segment segmentID `json:"seg,omitzero"`
	Offset  int64     `json:"off,omitempty"`
	Length  int64     `json:"len"`
}

func (r run) isZero() bool { return r.Segment == segmentID{} }

// content is what an object or part consists of, in order. It is never changed once made.
type content []run

func (c content) size() int64 {
	var n int64
	for _, r := range c {
		n += r.Length
	}
	return n
}

// add appends a run, as part of the last one where it goes on from that.
func (c content) add(r run) content {
	if r.Length == 0 {
		return c
	}
	if n := len(c); n > 0 {
		last := &c[n-1]
		if last.Segment == r.Segment && (r.isZero() || last.Offset+last.Length == r.Offset) {
			last.Length += r.Length
			return c
		}
	}
	return append(c, r)
}

// cut returns n bytes from off on; both must lie inside.
func (c content) cut(off, n int64) content {
	var out content
	for _, r := range c {
		if n == 0 {
			break
		}
		if off >= r.Length {
			off -= r.Length
			continue
		}
		take := min(n, r.Length-off)
		piece := run{Segment: r.Segment, Length: take}
		if !r.isZero() {
			piece.Offset = r.Offset + off
		}
		out = out.add(piece)
		off, n = 0, n-take
	}
	return out
}

// segments is the directory of segments and how often each is referred to: by records, by requests
// under way and by open objects. A segment goes with its last reference, so readers hold no file
// open and need not care about deletions.
type segments struct {
	disk disk
	dir  string

	mu   sync.Mutex
	refs map[segmentID]int
}

func newSegments(d disk) *segments {
	return &segments{disk: d, dir: d.path(segmentsDir), refs: make(map[segmentID]int)}
}

func (s *segments) path(id segmentID) string {
	return filepath.Join(s.dir, hex.EncodeToString(id[:]))
}

// hold adds a reference to each run's segment. The caller must know that they exist: from a record
// under the store's lock, or because it has a reference itself.
func (s *segments) hold(c content) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range c {
		if !r.isZero() {
			s.refs[r.Segment]++
		}
	}
}

// release takes back what hold added and removes the segments that nobody refers to any more.
func (s *segments) release(c content) error {
	var gone []segmentID
	s.mu.Lock()
	for _, r := range c {
		if r.isZero() {
			continue
		}
		if s.refs[r.Segment]--; s.refs[r.Segment] == 0 {
			delete(s.refs, r.Segment)
			gone = append(gone, r.Segment)
		}
	}
	s.mu.Unlock()
	var first error
	for _, id := range gone {
		if err := os.Remove(s.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) && first == nil {
			first = err
		}
	}
	return first
}

// sweep removes the files without a reference.
func (s *segments) sweep() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		var id segmentID
		if id.UnmarshalText([]byte(e.Name())) == nil && s.refs[id] > 0 {
			continue
		}
		if err := os.Remove(filepath.Join(s.dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// write stores body and returns it with a reference held. Blocks of zeros become holes, and a body
// of nothing else needs no file. After an error nothing is left.
func (s *segments) write(body io.Reader) (content, error) {
	w := segmentWriter{segments: s}
	buf := buffers.Get().(*[copyBuffer]byte)
	defer buffers.Put(buf)
	for {
		n, err := readFull(body, buf[:])
		if werr := w.write(buf[:n]); werr != nil {
			w.discard()
			return nil, werr
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			w.discard()
			return nil, err
		}
	}
	return w.finish()
}

// readFull fills p. Unlike io.ReadFull it returns the reader's own error, so that io.EOF is the
// reader's word that the body is whole.
func readFull(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		n += m
	}
	return n, err
}

type segmentWriter struct {
	segments *segments
	id       segmentID
	file     *os.File // nil while there were only zeros
	size     int64
}

// write appends p, whose length must be a multiple of holeUnit except the last time.
func (w *segmentWriter) write(p []byte) error {
	for len(p) > 0 {
		zero, n := leadingRun(p)
		if !zero {
			if err := w.writeData(p[:n]); err != nil {
				return err
			}
		}
		w.size += int64(n)
		p = p[n:]
	}
	return nil
}

// leadingRun returns how many bytes of p, in units of holeUnit, are alike in being zero or not.
func leadingRun(p []byte) (zero bool, n int) {
	zero = bitmap.IsZero(p[:min(holeUnit, len(p))])
	for n < len(p) {
		end := min(n+holeUnit, len(p))
		if bitmap.IsZero(p[n:end]) != zero {
			break
		}
		n = end
	}
	return zero, n
}

func (w *segmentWriter) writeData(p []byte) error {
	if w.file == nil {
		if err := w.create(); err != nil {
			return err
		}
	}
	_, err := w.file.WriteAt(p, w.size)
	return err
}

func (w *segmentWriter) create() error {
	if err := w.id.UnmarshalText([]byte(randomHex(len(w.id)))); err != nil {
		return err
	}
	f, err := os.OpenFile(w.segments.path(w.id), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	w.file = f
	return makeSparse(f)
}

// finish makes the segment durable.
func (w *segmentWriter) finish() (content, error) {
	c := content(nil).add(run{Segment: w.id, Length: w.size})
	if w.file == nil {
		return c, nil
	}
	err := w.file.Truncate(w.size)
	if err == nil {
		err = w.segments.disk.syncFile(w.file)
	}
	if err == nil {
		err = w.file.Close()
	}
	if err == nil {
		err = w.segments.disk.syncDir(w.segments.dir)
	}
	if err != nil {
		w.discard()
		return nil, err
	}
	w.segments.hold(c)
	w.segments.disk.at("segment written")
	return c, nil
}

func (w *segmentWriter) discard() {
	if w.file != nil {
		w.file.Close()
		os.Remove(w.segments.path(w.id))
	}
}
