package hwstream

import (
	"sync"

	"github.com/klauspost/compress/flate"
)

// A zlib payload is cut behind a sync flush and never finished: the reference driver refuses a finished
// one.

// syncMarker is the empty stored deflate block that ends a sync flush.
const syncMarker = "\x00\x00\xff\xff"

// Flushed reports whether a payload ends in a sync flush.
func Flushed(payload []byte) bool {
	return len(payload) >= len(syncMarker) && string(payload[len(payload)-len(syncMarker):]) == syncMarker
}

// ZlibHead returns the head of a zlib stream, which tells its level, 1 to 9 (RFC 1950, 2.2).
func ZlibHead(level int) string {
	switch {
	case level == 1:
		return "\x78\x01"
	case level < 6:
		return "\x78\x5e"
	case level == 6:
		return "\x78\x9c"
	}
	return "\x78\xda"
}

// Deflaters deflate blocks, each by itself. Safe for concurrent use; each goroutine costs one state.
type Deflaters struct {
	pool sync.Pool // *deflater
}

// deflater is a flate writer and where it writes to.
type deflater struct {
	out []byte
	w   *flate.Writer
}

// Write appends p to the output.
func (d *deflater) Write(p []byte) (int, error) {
	d.out = append(d.out, p...)
	return len(p), nil
}

// Append appends block deflated and flushed, without the head of a zlib stream. level is 1 to 9 as zlib
// counts, the same in all calls.
func (ds *Deflaters) Append(dst, block []byte, level int) ([]byte, error) {
	d, ok := ds.pool.Get().(*deflater)
	if !ok {
		d = new(deflater)
		var err error
		if d.w, err = flate.NewWriter(d, level); err != nil {
			return nil, err
		}
	}
	defer ds.pool.Put(d)
	d.out = dst
	d.w.Reset(d)
	_, err := d.w.Write(block)
	if err == nil {
		err = d.w.Flush()
	}
	dst, d.out = d.out, nil
	return dst, err
}
