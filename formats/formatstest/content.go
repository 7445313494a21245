package formatstest

import (
	"io"
	"slices"
)

// Piece is a run of guest bytes.
type Piece struct {
	Offset int64
	Data   []byte
}

// Sparse returns content of any size: zeros with pieces in them. Where pieces overlap, the later
// one counts. Reads never end: the size is the Case's.
func Sparse(pieces ...Piece) io.ReaderAt { return sparse(slices.Clone(pieces)) }

type sparse []Piece

func (s sparse) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	end := off + int64(len(p))
	for _, c := range s {
		from, to := max(off, c.Offset), min(end, c.Offset+int64(len(c.Data)))
		if from < to {
			copy(p[from-off:to-off], c.Data[from-c.Offset:])
		}
	}
	return len(p), nil
}

// expect returns the n bytes at off that the case says are there.
func (c Case) expect(off, n int64) []byte {
	p := make([]byte, n)
	if c.Content != nil {
		if k, err := c.Content.ReadAt(p, off); int64(k) < n {
			panic("formatstest: case " + c.Name + ": its content is shorter than its size: " + err.Error())
		}
	}
	return p
}
