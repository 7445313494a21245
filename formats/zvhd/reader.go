// Package zvhd reads and writes ZVHD, the older stream format of Huawei Cloud: blocks of 2 MiB, those
// that are all zero left out, compressed as one zlib stream without an index.
//
// It is for reading in order: a block can only be decoded after all those before it, or from one of a
// few places that the reader remembers. Package zvhd2 is for its successor.
package zvhd

import (
	"context"
	"math"
	"slices"
	"sync"

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
	t := &table{Index: index, file: mapped.NewReader(ctx, name, src), current: -1}
	return image{mapped.New(mapped.Config{Reader: t.file, Size: int64(f.OrigSize), Table: t})}, nil
}

// image is read in order.
type image struct{ formats.Image }

// Sequential is true: random access costs a decode from an earlier place.
func (image) Sequential() bool { return true }

// maxWindows is how many windows are remembered to start from: 8 MiB of memory.
const maxWindows = 256

// table is the mapping of a ZVHD file. Its memory is the index, a block, a chunk (at most
// hwstream.MaxChunk), a decoder, and maxWindows windows.
type table struct {
	hwstream.Index
	file *mapped.Reader

	mu      sync.Mutex // guards what follows: one decodes at a time
	block   []byte     // decoded
	current int        // which chunk it is of, or -1
	// windows has what lies before some chunks, by their place in the index: every stride-th one as
	// far as was decoded. The stride doubles when there are too many.
	windows map[int][]byte
	stride  int
}

// Decode fills p with the stored blocks from off on.
func (t *table) Decode(p []byte, off int64, _ mapped.Run) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k := t.Find(off / BlockSize); len(p) > 0; k++ {
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
	if k%t.stride != 0 || k >= t.Stored() || t.windows[k] != nil {
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
	return t.With(t.file, k, func(chunk []byte) error {
		return decodeChunk(t.block, chunk, window, k == 0, t.Index[k].Pos(), t.Index[k].Block)
	})
}

// decodeChunk decodes chunk, the whole chunk of a block at file offset pos, into dst, which has
// BlockSize bytes. The first one has the stream's head.
func decodeChunk(dst, chunk, window []byte, first bool, pos int64, block uint32) error {
	return hwstream.Decode(name, chunk, pos, block, func(payload []byte) error {
		if first {
			if err := checkZlibHead(payload); err != nil {
				return err
			}
			payload = payload[zlibHeadSize:]
		}
		return inflate(dst, payload, window)
	})
}

// info answers from the header and the frames of all chunks.
func info(ctx context.Context, src formats.Source) (formats.Info, error) {
	in := formats.Info{Format: name, ClusterSize: BlockSize}
	_, index, err := load(ctx, src)
	if in.Problem = err; err != nil && !formats.BlamesImage(err) {
		return formats.Info{}, err
	}
	f, _, err := loadHeader(ctx, src)
	if err != nil {
		if !formats.BlamesImage(err) {
			return formats.Info{}, err
		}
		return in, nil
	}
	in.VirtualSize = int64(min(f.OrigSize, math.MaxInt64))
	own := []formats.Property{{Name: "blocks", Value: uint64(bitmap.Blocks(in.VirtualSize))}}
	if in.Problem == nil {
		own = append(own, formats.Property{Name: "stored-blocks", Value: uint64(index.Stored())})
	}
	in.Specific = f.Properties(append(own, formats.Property{Name: "compression type", Value: "zlib"})...)
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
	stored := int64(index.Stored())
	return formats.Checked{Clusters: bitmap.Blocks(int64(f.OrigSize)), Allocated: stored, Compressed: stored, End: src.Size()}, nil
}
