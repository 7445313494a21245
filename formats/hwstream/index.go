package hwstream

import (
	"fmt"
	"sort"

	"imgferry/formats/mapped"
)

// Ref is one stored block in an Index: its number, and where its chunk begins in pages.
type Ref struct{ Block, Page uint32 }

// Pos returns where the chunk begins in the file, in bytes.
func (r Ref) Pos() int64 { return int64(r.Page) * Page }

// Index has the stored blocks of a file in ascending order. A chunk ends where the next one begins, so an
// index ends with a sentinel: the number of blocks of the disk, and the place of the footer that follows
// the last chunk. It takes 8 bytes a stored block.
type Index []Ref

// Stored returns how many blocks are stored.
func (x Index) Stored() int { return len(x) - 1 }

// Length returns the length of chunk k in bytes.
func (x Index) Length(k int) int64 { return x[k+1].Pos() - x[k].Pos() }

// Find returns the place of the first chunk at or after block; the sentinel's if there is none.
func (x Index) Find(block int64) int {
	return sort.Search(x.Stored(), func(i int) bool { return int64(x[i].Block) >= block })
}

// Map returns the run of blocks, stored or not, at off, as mapped.Table has it. It never fails.
func (x Index) Map(off, limit int64) (mapped.Run, error) {
	block := off / BlockSize
	k := x.Find(block)
	next := int64(x[k].Block)
	if next > block { // the sentinel's block begins at or after the end of the disk
		return mapped.Run{Kind: mapped.Hole, Length: min(next*BlockSize-off, limit)}, nil
	}
	for next*BlockSize < off+limit && k < x.Stored() && int64(x[k].Block) == next {
		k, next = k+1, next+1
	}
	return mapped.Run{Kind: mapped.Encoded, Length: min(next*BlockSize-off, limit)}, nil
}

// With reads chunk k from file and calls use with it; its bytes are only valid during the call.
func (x Index) With(file *mapped.Reader, k int, use func(chunk []byte) error) error {
	return file.With(x[k].Pos(), x.Length(k), fmt.Sprintf("the chunk of block %d", x[k].Block), use)
}
