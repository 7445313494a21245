package formatstest

import (
	"errors"
	"fmt"
	"io"
	"os"
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
