// Package zvhd2 reads and writes ZVHD2, the compressed disk image of Huawei Cloud: a stream of
// independently compressed blocks of 2 MiB, then an index, a bitmap and a trailer. Blocks that are
// all zero are not stored.
//
// The reader is stricter than the vendor's: every position, count and number that the file holds
// twice must agree. It is not for the older ZVHD, whose blocks are one continuous stream.
package zvhd2

import (
	"context"
	"math"

	"imgferry/formats"
	"imgferry/formats/hwstream"
	"imgferry/formats/mapped"
)

// name is the format's name; qemu-img has none for it.
const name = "zvhd2"

// Format returns ZVHD2 for the table of formats.
func Format() formats.Format {
	return formats.Format{Name: name, Probe: probe, Open: open, Info: info, Check: structure}
}

// probe looks for the cookie in the header and, should that be damaged, in the trailer.
func probe(src formats.Source) (bool, error) {
	var b [len(cookie)]byte
	for _, pos := range []int64{0, src.Size() - page} {
		if pos < 0 || pos+int64(len(b)) > src.Size() {
			continue
		}
		if err := formats.ReadFull(src, b[:], pos); err != nil {
			return false, formats.ReadFailed(name, pos, "the cookie", err)
		}
		if string(b[:]) == cookie {
			return true, nil
		}
	}
	return false, nil
}

// cacheBlocks is how many decoded blocks are kept, 2 MiB each: enough for a few readers that go
// through the disk in small steps. A block that somebody still copies from counts beside it.
const cacheBlocks = 4

func open(ctx context.Context, src formats.Source, _ formats.Resolver) (formats.Image, error) {
	f, index, err := load(ctx, src)
	if err != nil {
		return nil, err
	}
	t := newTable(ctx, src, f, index)
	return mapped.New(mapped.Config{Reader: t.file, Size: t.size, Table: t}), nil
}

// table is the mapping of a ZVHD2 file. Its memory is the index, the cache, and for each goroutine that
// reads one chunk (at most hwstream.MaxChunk) and the state of its decoder.
type table struct {
	hwstream.Index
	file    *mapped.Reader
	size    int64 // bytes
	codec   Codec
	decoded *mapped.Cache // blocks by the place of their chunk in the index
}

// newTable returns the mapping that load has found in src. ctx ends its reads.
func newTable(ctx context.Context, src formats.Source, f footer, index hwstream.Index) *table {
	// The reference driver presents currSize, the disk rounded up to a GiB. We present what was
	// converted: a copy of a copy keeps its size, and what lies beyond reads as zero anyway.
	t := &table{Index: index, file: mapped.NewReader(ctx, name, src), size: int64(f.OrigSize), codec: codecOf(f.method)}
	t.decoded = mapped.NewCache(cacheBlocks, func(k int64) ([]byte, error) {
		p := make([]byte, BlockSize)
		return p, t.decode(p, int(k))
	})
	return t
}

// Decode fills p with the stored blocks from off on. Whole ones are decoded into p, parts of one go
// through the cache.
func (t *table) Decode(p []byte, off int64, _ mapped.Run) error {
	for k := t.Find(off / BlockSize); len(p) > 0; k++ {
		within := off % BlockSize
		n := BlockSize
		if within == 0 && len(p) >= BlockSize {
			if err := t.decode(p[:BlockSize:BlockSize], k); err != nil {
				return err
			}
		} else {
			data, err := t.decoded.Get(int64(k))
			if err != nil {
				return err
			}
			n = copy(p, data[within:])
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// decode reads chunk k and decodes it into dst, which has BlockSize bytes.
func (t *table) decode(dst []byte, k int) error {
	if err := t.file.Err(); err != nil {
		return err
	}
	return t.With(t.file, k, func(chunk []byte) error {
		return decodeChunk(dst, chunk, t.codec, t.Index[k].Pos(), t.Index[k].Block)
	})
}

// decodeChunk decodes chunk, the whole chunk of a block at file offset pos, into dst, which has
// BlockSize bytes.
func decodeChunk(dst, chunk []byte, codec Codec, pos int64, block uint32) error {
	return hwstream.Decode(name, chunk, pos, block, func(payload []byte) error { return codec.decode(dst, payload) })
}

// info answers from the trailer or, if that is damaged, from the header.
func info(ctx context.Context, src formats.Source) (formats.Info, error) {
	in := formats.Info{Format: name}
	if _, _, in.Problem = load(ctx, src); in.Problem != nil && !formats.BlamesImage(in.Problem) {
		return formats.Info{}, in.Problem
	}
	for _, pos := range []int64{src.Size() - page, 0} {
		if pos < 0 || pos+footerSize > src.Size() {
			continue
		}
		b, err := readFooter(ctx, src, pos, "footer")
		if err != nil {
			if !formats.BlamesImage(err) {
				return formats.Info{}, err
			}
			continue
		}
		if t := parseFooter(b); hwstream.CheckChecksum(name, b, pos, "footer") == nil {
			t.describe(&in)
			break
		}
	}
	return in, nil
}

// describe fills in what f says.
func (f footer) describe(in *formats.Info) {
	in.VirtualSize = int64(min(f.OrigSize, math.MaxInt64))
	in.ClusterSize = int64(f.blockSize)
	own := []formats.Property{{Name: "blocks", Value: uint64(f.maxBlocks)}, {Name: "stored-blocks", Value: uint64(f.stored)}}
	if f.method <= methodZstd {
		own = append(own, formats.Property{Name: "compression type", Value: codecOf(f.method).String()})
	}
	in.Specific = f.Properties(own...)
}
