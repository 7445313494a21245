// Package zvhd reads and writes ZVHD, the older stream format of Huawei Cloud: blocks of 2 MiB, those
// that are all zero left out, compressed as one zlib stream without an index.
//
// It is for reading in order: a block can only be decoded after all those before it, or from one of a
// few places that the reader remembers. Package zvhd2 is for its successor.
package zvhd

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sort"
	"sync"
	"time"

	"imgferry/bitmap"
	"imgferry/formats"
	"imgferry/formats/hwstream"
	"imgferry/formats/mapped"
)

// name is the format's name; qemu-img has none for it.
const name = "zvhd"

// Format returns ZVHD for the table of formats.
func Format() formats.Format {
	return formats.Format{Name: name, Probe: probe, Open: open, Info: info, Check: structure}
}

// probe looks for the cookie in the header.
func probe(src formats.Source) (bool, error) {
	var b [len(cookie)]byte
	if src.Size() < int64(len(b)) {
		return false, nil
	}
	if err := formats.ReadFull(src, b[:], 0); err != nil {
		return false, formats.ReadFailed(name, 0, "the cookie", err)
	}
	return string(b[:]) == cookie, nil
}

func open(ctx context.Context, src formats.Source, _ formats.Resolver) (formats.Image, error) {
	f, index, err := load(ctx, src)
	if err != nil {
		return nil, err
	}
	t := &table{file: mapped.NewReader(ctx, name, src), index: index, current: -1}
	return image{mapped.New(mapped.Config{Reader: t.file, Size: int64(f.origSize), Table: t})}, nil
}

// image is read in order.
type image struct{ formats.Image }

// Sequential is true: random access costs a decode from an earlier place.
func (image) Sequential() bool { return true }

// maxWindows is how many windows are remembered to start from: 8 MiB of memory.
const maxWindows = 256

// table is the mapping of a ZVHD file. Its memory is the index (8 bytes a stored block), a block, a
// chunk (at most maxChunk), a decoder, and maxWindows windows.
type table struct {
	file  *mapped.Reader
	index []chunkRef

	mu      sync.Mutex // guards what follows: one decodes at a time
	block   []byte     // decoded
	current int        // which chunk it is of, or -1
	// windows has what lies before some chunks, by their place in the index: every stride-th one as
	// far as was decoded. The stride doubles when there are too many.
	windows map[int][]byte
	stride  int
}

// find returns the index of the first chunk at or after block; the sentinel if there is none.
func (t *table) find(block int64) int {
	return sort.Search(len(t.index)-1, func(i int) bool { return int64(t.index[i].block) >= block })
}

// Map returns the run of blocks, stored or not, at off.
func (t *table) Map(off, limit int64) (mapped.Run, error) {
	block := off / BlockSize
	k := t.find(block)
	next := int64(t.index[k].block)
	if next > block { // the sentinel's block begins at or after the end of the disk
		return mapped.Run{Kind: mapped.Hole, Length: min(next*BlockSize-off, limit)}, nil
	}
	for next*BlockSize < off+limit && k < len(t.index)-1 && int64(t.index[k].block) == next {
		k, next = k+1, next+1
	}
	return mapped.Run{Kind: mapped.Encoded, Length: min(next*BlockSize-off, limit)}, nil
}

// Decode fills p with the stored blocks from off on.
func (t *table) Decode(p []byte, off int64, _ mapped.Run) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k := t.find(off / BlockSize); len(p) > 0; k++ {
		if err := t.reach(k); err != nil {
			return err
		}
		n := copy(p, t.block[off%BlockSize:])
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// reach decodes chunk k, and what lies between it and the nearest place to start from.
func (t *table) reach(k int) error {
	if t.current == k {
		return nil
	}
	if t.block == nil {
		t.block, t.windows, t.stride = make([]byte, BlockSize), make(map[int][]byte), 1
	}
	from, window := 0, []byte(nil)
	for i := k / t.stride * t.stride; i > 0; i -= t.stride {
		if w, ok := t.windows[i]; ok {
			from, window = i, w
			break
		}
	}
	if t.current >= 0 && t.current < k && t.current >= from {
		from, window = t.current+1, t.tail()
	}
	for i := from; i <= k; i++ {
		t.current = -1 // the block is not whole until it is
		if err := t.file.Err(); err != nil {
			return err
		}
		if err := t.decode(i, window); err != nil {
			return err
		}
		t.current = i
		window = t.tail()
		t.remember(i+1, window)
	}
	return nil
}

// tail is the window that the current block leaves.
func (t *table) tail() []byte { return t.block[BlockSize-windowSize:] }

// remember keeps a copy of the window before chunk k, if it is one of those to keep.
func (t *table) remember(k int, window []byte) {
	if k%t.stride != 0 || k >= len(t.index)-1 || t.windows[k] != nil {
		return
	}
	if len(t.windows) == maxWindows {
		t.stride *= 2
		for i := range t.windows {
			if i%t.stride != 0 {
				delete(t.windows, i)
			}
		}
		if k%t.stride != 0 {
			return
		}
	}
	t.windows[k] = slices.Clone(window)
}

// decode reads chunk k and decodes it into t.block.
func (t *table) decode(k int, window []byte) error {
	c, end := t.index[k], t.index[k+1].pos()
	return t.file.With(c.pos(), end-c.pos(), fmt.Sprintf("the chunk of block %d", c.block), func(chunk []byte) error {
		return decodeChunk(t.block, chunk, window, k == 0, c.pos(), c.block)
	})
}

// decodeChunk decodes chunk, the whole chunk of a block at file offset pos, into dst, which has
// BlockSize bytes. The first one has the stream's head.
func decodeChunk(dst, chunk, window []byte, first bool, pos int64, block uint32) error {
	payload, err := hwstream.Payload(name, chunk, pos, block)
	if err != nil {
		return err
	}
	if first {
		if err = checkZlibHead(payload); err == nil {
			payload = payload[zlibHeadSize:]
		}
	}
	if err == nil {
		err = inflate(dst, payload, window)
	}
	if err != nil {
		return formats.Corrupt(name, pos+hwstream.HeadSize, "block %d can't be decoded: %v", block, err)
	}
	return nil
}

// epoch is where the format's clock begins.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// info answers from the header and the frames of all chunks.
func info(ctx context.Context, src formats.Source) (formats.Info, error) {
	in := formats.Info{Format: name, ClusterSize: BlockSize}
	_, index, err := load(ctx, src)
	if in.Problem = err; err != nil && !isImageFault(err) {
		return formats.Info{}, err
	}
	f, _, err := loadHeader(ctx, src)
	if err != nil {
		if !isImageFault(err) {
			return formats.Info{}, err
		}
		return in, nil
	}
	in.VirtualSize = int64(min(f.origSize, math.MaxInt64))
	u := f.uuid
	in.Specific = []formats.Property{
		{Name: "uuid", Value: fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])},
		{Name: "blocks", Value: uint64(bitmap.Blocks(in.VirtualSize))},
	}
	if in.Problem == nil {
		in.Specific = append(in.Specific, formats.Property{Name: "stored-blocks", Value: uint64(len(index) - 1)})
	}
	in.Specific = append(in.Specific, formats.Property{Name: "compression type", Value: "zlib"})
	if f.timestamp != 0 { // 0 is what writers put that keep the clock out of the file
		created := epoch.Add(time.Duration(f.timestamp) * time.Second).Format(time.RFC3339)
		in.Specific = append(in.Specific, formats.Property{Name: "created", Value: created})
	}
	return in, nil
}

// structure is formats.Format's Check: header, footer, and the frame of every chunk. Payloads are not
// decoded.
func structure(ctx context.Context, src formats.Source, found func(formats.Finding)) (formats.Checked, error) {
	f, index, err := load(ctx, src)
	if err != nil {
		if fault, ok := err.(*formats.Error); ok && fault.Class == formats.ErrCorrupt {
			found(formats.Finding{Offset: fault.Offset, What: fault.What})
			return formats.Checked{}, nil
		}
		return formats.Checked{}, err
	}
	stored := int64(len(index) - 1)
	return formats.Checked{Clusters: bitmap.Blocks(int64(f.origSize)), Allocated: stored, Compressed: stored, End: src.Size()}, nil
}
