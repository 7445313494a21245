package formatstest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync/atomic"

	"imgferry/formats"
)

// errDisk is how a broken source fails.
var errDisk = errors.New("the disk under the image is broken")

// memory is a source in memory that counts, and that breaks when it is told to.
type memory struct {
	p      []byte
	reads  atomic.Int64
	closes atomic.Int64
	// failAt is the number of the first read that fails, from 1; 0 never fails.
	failAt int64
}

// NewSource returns a source that reads p, which must not change any more. After Close it fails
// with os.ErrClosed.
func NewSource(p []byte) formats.Source { return &memory{p: p} }

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	n := m.reads.Add(1)
	switch {
	case m.closes.Load() > 0:
		return 0, os.ErrClosed
	case m.failAt > 0 && n >= m.failAt:
		return 0, errDisk
	case off < 0:
		return 0, fmt.Errorf("source read at the negative offset %d", off)
	case off >= int64(len(m.p)):
		return 0, io.EOF
	}
	k := copy(p, m.p[off:])
	if k < len(p) {
		return k, io.EOF
	}
	return k, nil
}

func (m *memory) Close() error     { m.closes.Add(1); return nil }
func (m *memory) Size() int64      { return int64(len(m.p)) }
func (m *memory) Identity() string { return fmt.Sprintf("memory of %d bytes", len(m.p)) }

// sparseSource is content of any size.
type sparseSource struct {
	pieces sparse
	size   int64
}

// NewSparseSource returns a source of size bytes that is a hole but for its pieces. It takes no memory
// for the hole, and can be read after Close.
func NewSparseSource(size int64, pieces ...Piece) formats.Source {
	return sparseSource{slices.Clone(pieces), size}
}

func (s sparseSource) ReadAt(p []byte, off int64) (int, error) {
	n := max(min(int64(len(p)), s.size-off), 0)
	s.pieces.ReadAt(p[:n], off)
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// NextData finds the next piece: everything else is a hole.
func (s sparseSource) NextData(off int64) (start, end int64, err error) {
	start, end = s.size, s.size
	for _, p := range s.pieces {
		if from, to := max(off, p.Offset), min(p.Offset+int64(len(p.Data)), s.size); from < to && from < start {
			start, end = from, to
		}
	}
	return start, end, nil
}

func (s sparseSource) Size() int64    { return s.size }
func (sparseSource) Close() error     { return nil }
func (sparseSource) Identity() string { return "sparse" }

// Counted counts what is asked of a source, by one goroutine.
type Counted struct {
	formats.Source
	N     int64 // bytes read
	Asked int64 // questions for data
}

// ReadAt reads from the source.
func (c *Counted) ReadAt(p []byte, off int64) (int, error) {
	c.N += int64(len(p))
	return c.Source.ReadAt(p, off)
}

// NextData asks the source, or takes all of it for data.
func (c *Counted) NextData(off int64) (start, end int64, err error) {
	c.Asked++
	if f, ok := c.Source.(formats.HoleFinder); ok {
		return f.NextData(off)
	}
	return min(off, c.Size()), c.Size(), nil
}
