// Package qcow2 reads QEMU's qcow2 images, versions 2 and 3.
//
// It reads the active disk: internal snapshots, bitmaps and reference counts are left alone. It
// doesn't write, doesn't check reference counts, and follows no name found in an image.
//
// An open image holds its L1 table (at most 32 MiB), 8 MiB of L2 tables and 4 MiB of decompressed
// clusters, whatever its size; each read under way adds at most 4 MiB of compressed bytes.
//
// Where this package and QEMU differ, it is stricter: reserved bits that are set, and tables or
// clusters beyond the end of the file, are errors here, while QEMU ignores the ones and reads zeros
// for the others. A virtual size that is not a multiple of 512 is kept; QEMU rounds it down.
package qcow2

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"os"
	"sync"

	"imgferry/formats"
)

const (
	// maxSlice is how many bytes of an L2 table are read and cached at once: a table of 2 MiB would
	// be much to read for one cluster.
	maxSlice = 64 << 10
	// l2CacheBytes of tables describe 64 GiB of disk at the usual cluster size of 64 KiB. Eight
	// readers that each walk their own part need 8 slices.
	l2CacheBytes   = 8 << 20
	l2CacheEntries = 4096 // slices of 512 bytes cost more in bookkeeping than in bytes
	// decodedCacheBytes holds clusters for readers that read less than a cluster at a time: two of
	// the largest size.
	decodedCacheBytes   = 4 << 20
	decodedCacheEntries = 64
	// maxStep bounds what is done between two looks at the context, in bytes of disk.
	maxStep = 8 << 20
	// batchBytes bounds the neighbouring compressed clusters that are read in one go, in bytes of
	// file; the gaps between them that are read along are at most batchGap.
	batchBytes = 1 << 20
	batchGap   = 64 << 10
)

// image is an open qcow2 file. ctx ends with the caller's context, or with os.ErrClosed at Close.
type image struct {
	ctx      context.Context
	cancel   context.CancelCauseFunc
	src      formats.Source
	fileSize int64
	header
	l1      []byte // as in the file; only the entries that the virtual size needs
	l2      *cache // slices of L2 tables by their offset in the file
	decoded *cache // decompressed clusters by their L2 entry
}

func open(ctx context.Context, src formats.Source, res formats.Resolver) (formats.Image, error) {
	f, err := readFirst(ctx, src)
	if err != nil {
		return nil, err
	}
	if err := f.check(src.Size(), res); err != nil {
		return nil, err
	}
	m := &image{src: src, fileSize: src.Size(), header: f.header}
	if err := m.readL1(); err != nil {
		return nil, err
	}
	m.ctx, m.cancel = context.WithCancelCause(ctx)
	m.l2 = newCache(int(min(l2CacheBytes/m.sliceSize(), l2CacheEntries)), m.loadSlice)
	m.decoded = newCache(int(min(decodedCacheBytes/m.clusterSize(), decodedCacheEntries)), m.loadDecoded)
	return m, nil
}

// readL1 reads the L1 table, which checkL1 has found to lie in the file.
func (m *image) readL1() error {
	m.l1 = make([]byte, m.l1Needed()*8)
	if err := formats.ReadFull(m.src, m.l1, int64(m.l1Offset)); err != nil {
		return formats.ReadFailed(name, int64(m.l1Offset), "the L1 table", err)
	}
	// Each L2 table has a cluster of its own. If the file has not that many, tables are shared, and
	// a few bytes of file could keep a walk over them busy for hours.
	var tables int64
	for i := 0; i < len(m.l1); i += 8 {
		if binary.BigEndian.Uint64(m.l1[i:])&entryOffset != 0 {
			tables++
		}
	}
	if tables > m.fileSize>>m.clusterBits {
		return formats.Corrupt(name, int64(m.l1Offset), "the L1 table has %d L2 tables, the file has room for %d", tables, m.fileSize>>m.clusterBits)
	}
	return nil
}

func (m *image) Size() int64      { return int64(m.size) }
func (m *image) Sequential() bool { return false }

func (m *image) Close() error {
	m.cancel(os.ErrClosed)
	return m.src.Close()
}

// ReadAt reads guest bytes. Data clusters go straight from the file into p, one read for each run
// of them that lies in one piece.
func (m *image) ReadAt(p []byte, off int64) (int, error) {
	if m.ctx.Err() != nil {
		return 0, context.Cause(m.ctx)
	}
	if off < 0 {
		return 0, fmt.Errorf("qcow2: negative offset %d", off)
	}
	if off >= m.Size() {
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), m.Size()-off)]
	for n := 0; n < len(want); {
		if m.ctx.Err() != nil {
			return n, context.Cause(m.ctx)
		}
		r, err := m.mapRun(off+int64(n), min(int64(len(want)-n), maxStep))
		if err != nil {
			return n, err
		}
		// The capacity ends with the caller's bytes: decoders use what lies before it as scratch.
		q := want[n : n+int(r.length) : len(want)]
		switch r.kind {
		case data:
			err = m.read(q, r.host, "a data cluster")
		case compressed:
			err = m.readCompressed(q, off+int64(n), r.entries)
		default:
			clear(q)
		}
		if err != nil {
			return n, err
		}
		n += len(q)
	}
	if len(want) < len(p) {
		return len(want), io.EOF
	}
	return len(want), nil
}

// Extents walks the tables.
func (m *image) Extents(ctx context.Context) iter.Seq2[formats.Extent, error] {
	return func(yield func(formats.Extent, error) bool) {
		var last formats.Extent // found, not yet yielded: it may grow
		for off := int64(0); off < m.Size(); {
			r, err := m.mapRunUnless(ctx, off)
			if err != nil {
				if last.Length == 0 || yield(last, nil) {
					yield(formats.Extent{}, err)
				}
				return
			}
			e := r.extent(off)
			off += r.length
			if last.Length > 0 && follows(last, e) {
				last.Length += e.Length
				continue
			}
			if last.Length > 0 && !yield(last, nil) {
				return
			}
			last = e
		}
		if last.Length > 0 {
			yield(last, nil)
		}
	}
}

// mapRunUnless maps up to the disk's end unless ctx or the image's context has ended.
func (m *image) mapRunUnless(ctx context.Context, off int64) (run, error) {
	if m.ctx.Err() != nil {
		return run{}, context.Cause(m.ctx)
	}
	if ctx.Err() != nil {
		return run{}, context.Cause(ctx)
	}
	return m.mapRun(off, m.Size()-off)
}

func (r run) extent(off int64) formats.Extent {
	e := formats.Extent{Offset: off, Length: r.length, HostOffset: -1}
	switch r.kind {
	case data:
		e.HostOffset = r.host
	case compressed:
		e.Compressed = true
	default:
		e.Zero = true
	}
	return e
}

// follows reports whether b, which starts where a ends, is more of the same.
func follows(a, b formats.Extent) bool {
	return a.Zero == b.Zero && a.Compressed == b.Compressed &&
		(a.HostOffset < 0 || a.HostOffset+a.Length == b.HostOffset)
}

// read fills p from off of the file.
func (m *image) read(p []byte, off int64, what string) error {
	err := formats.ReadFull(m.src, p, off)
	switch {
	case err == nil:
		return nil
	case m.ctx.Err() != nil: // Close and cancellation end reads under way
		return context.Cause(m.ctx)
	}
	return formats.ReadFailed(name, off, what, err)
}

// readBuffers hold compressed bytes on their way to the decoder.
var readBuffers = sync.Pool{New: func() any { return new([]byte) }}

// withBytes calls use with the n bytes at off of the file, which are only valid during the call.
func (m *image) withBytes(off, n int64, use func([]byte) error) error {
	buf := readBuffers.Get().(*[]byte)
	defer readBuffers.Put(buf)
	if int64(cap(*buf)) < n {
		*buf = make([]byte, n)
	}
	p := (*buf)[:n]
	if err := m.read(p, off, "compressed clusters"); err != nil {
		return err
	}
	return use(p)
}
