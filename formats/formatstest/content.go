package formatstest

import (
	"io"
	"math/rand/v2"
	"slices"
)

// Noise is data that doesn't compress. It depends on the seed only.
func Noise(seed uint64, n int) []byte {
	r := rand.NewPCG(seed, 2)
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(r.Uint64() >> 32)
	}
	return p
}

// Text is data that compresses: words in random order. It depends on the seed only.
func Text(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	words := make([][]byte, 256)
	for i := range words {
		words[i] = Noise(seed<<8|uint64(i), 3+r.IntN(60))
	}
	p := make([]byte, 0, n+64)
	for len(p) < n {
		p = append(p, words[r.IntN(len(words))]...)
	}
	return p[:n]
}

// Disk is what most images hold: runs that compress, that don't, and zeros in between.
func Disk(size int64) []Piece {
	return []Piece{
		{Offset: 0, Data: Text(1, int(min(size, 40_000)))},
		{Offset: size / 3, Data: Noise(2, int(size/20))},
		{Offset: size/3 + size/20, Data: Text(3, int(size/20))},
		{Offset: size - size/100, Data: Text(4, int(size/100))},
	}
}

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
	c.fill(p, off)
	return p
}

// fill fills p with the bytes at off that the case says are there.
func (c Case) fill(p []byte, off int64) {
	if c.Content == nil {
		clear(p)
	} else if n, err := c.Content.ReadAt(p, off); n < len(p) {
		panic("formatstest: case " + c.Name + ": its content is shorter than its size: " + err.Error())
	}
}
