package inflate_test

import (
	"bytes"
	stdflate "compress/flate"
	stdzlib "compress/zlib"
	"encoding/binary"
	"errors"
	"hash/adler32"
	"io"
	"sync"
	"testing"

	"imgferry/inflate"
)

// maxFuzzed is less than this many bytes, to be fast: several times what the fast loop wants as room.
const maxFuzzed = 4096

// FuzzRaw decodes anything.
func FuzzRaw(f *testing.F) {
	for _, p := range [][]byte{nil, []byte("abc"), text(1000), bytes.Repeat([]byte("ab"), 4000), random(600)} {
		f.Add(compress(f, p, true, false), uint16(len(p)))
		f.Add(compress(f, p, false, false), uint16(len(p)))
	}
	for seed := range uint64(40) {
		src, out := makeStream(seed)
		f.Add(src, uint16(len(out)+1))
	}
	f.Fuzz(func(t *testing.T, src []byte, size uint16) { compareRaw(t, src, int(size%maxFuzzed)) })
}

// FuzzMade decodes made streams into too much room or too little, cut, or with a damaged byte.
func FuzzMade(f *testing.F) {
	f.Add(uint64(1), 0, uint16(0), byte(0), uint16(0))
	f.Add(uint64(2), 1, uint16(0), byte(0), uint16(1))
	f.Add(uint64(3), -1, uint16(40), byte(1), uint16(30))
	f.Fuzz(func(t *testing.T, seed uint64, room int, at uint16, damage byte, cut uint16) {
		src, out := makeStream(seed)
		if damage == 0 {
			if got, err := standard(src, len(out)+1); err != nil || !bytes.Equal(got, out) {
				t.Fatalf("the made stream itself is wrong: %v", err)
			}
		}
		src[int(at)%len(src)] ^= damage
		src = src[:len(src)-int(cut)%len(src)]
		compareRaw(t, src, max(0, len(out)+room%1000))
	})
}

// FuzzZlib decodes anything as zlib, with a good header and sum if good is set.
func FuzzZlib(f *testing.F) {
	for _, p := range [][]byte{nil, []byte("abc"), text(1000)} {
		z := compress(f, p, true, true)
		f.Add(z, uint16(len(p)), false)
		f.Add(z[2:len(z)-4], uint16(len(p)), true)
	}
	f.Fuzz(func(t *testing.T, src []byte, size uint16, good bool) {
		size %= maxFuzzed
		if good {
			out, _ := standard(src, int(size))
			src = append([]byte("\x78\x9c"), src...)
			src = binary.BigEndian.AppendUint32(src, adler32.Checksum(out))
		}
		compareZlib(t, src, int(size))
	})
}

// guard is behind the slices that are decoded to and from, within their capacity.
var guard = bytes.Repeat([]byte{0xdb}, 64)

// guarded runs decode on src, which has other bytes behind it, into size bytes with other bytes
// behind them, and wants these unharmed.
func guarded(t *testing.T, decode func(dst, src []byte) (int, error), src []byte, size int) ([]byte, error) {
	t.Helper()
	dst := append(make([]byte, size, size+len(guard)), guard...)
	src = append(bytes.Clone(src), guard...)
	n, err := decode(dst[:size], src[:len(src)-len(guard)])
	if !bytes.Equal(dst[size:], guard) {
		t.Fatal("written behind dst")
	}
	return dst[:n], err
}

// compareRaw holds Raw against compress/flate: the same bytes, and the same class of error.
func compareRaw(t *testing.T, src []byte, size int) {
	t.Helper()
	got, err := guarded(t, inflate.Raw, src, size)
	want, werr := standard(src, size+1)
	if werr == io.ErrUnexpectedEOF {
		// The standard library leaves the last bits of a cut stream alone if they are fewer than an
		// end of block has. It takes them with more bits behind.
		more, merr := standard(append(bytes.Clone(src), make([]byte, 8)...), size+1)
		if err == nil && len(got) == size || err == inflate.ErrShort && len(got) < size {
			if len(got) < len(want) || !bytes.HasPrefix(more, got) {
				t.Fatalf("%d bytes of a cut stream, want %d to %d, or they differ", len(got), len(want), len(more))
			}
			return
		}
		want, werr = more, merr
	}
	wantErr := inflate.ErrCorrupt
	switch {
	case len(want) > size:
		want, wantErr = want[:size], inflate.ErrTooLong
	case werr == nil:
		wantErr = nil
	case werr == io.ErrUnexpectedEOF:
		wantErr = inflate.ErrShort
	}
	if !errors.Is(err, wantErr) || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes, %v; want %d, %v", len(got), err, len(want), wantErr)
	}
}

// compareZlib holds Zlib against compress/zlib, and ZlibFlushed against Raw.
func compareZlib(t *testing.T, src []byte, size int) {
	t.Helper()
	got, err := guarded(t, inflate.Zlib, src, size)
	flushed, ferr := guarded(t, inflate.ZlibFlushed, src, size)
	r, werr := stdzlib.NewReader(bytes.NewReader(src))
	// The standard library accepts a preset dictionary if it is empty.
	if werr != nil || src[1]&0x20 != 0 {
		short := len(src) < 2
		if short != (err == inflate.ErrShort) || !short && err != inflate.ErrCorrupt || ferr != err {
			t.Fatalf("header: %v and %v, want %v", err, ferr, werr)
		}
		return
	}
	raw, rerr := guarded(t, inflate.Raw, src[2:], size)
	if ferr != rerr || !bytes.Equal(flushed, raw) {
		t.Fatalf("flushed: %v, want %v", ferr, rerr)
	}
	want, werr := readUpTo(r, size+1)
	switch {
	case len(want) > size:
		if err != inflate.ErrTooLong {
			t.Fatalf("%v, want too long", err)
		}
	case (err == nil) != (werr == nil):
		t.Fatalf("%v, want %v", err, werr)
	case werr == stdzlib.ErrChecksum != (err == inflate.ErrChecksum):
		t.Fatalf("%v, want %v", err, werr)
	case err == nil && !bytes.Equal(got, want):
		t.Fatal("bytes differ")
	}
}

var standardReaders = sync.Pool{New: func() any { return stdflate.NewReader(nil) }}

// standard returns up to limit bytes as compress/flate decodes them, and its error if they are less.
func standard(src []byte, limit int) ([]byte, error) {
	r := standardReaders.Get().(io.Reader)
	defer standardReaders.Put(r)
	if err := r.(stdflate.Resetter).Reset(bytes.NewReader(src), nil); err != nil {
		return nil, err
	}
	return readUpTo(r, limit)
}

// readUpTo is io.ReadFull with nil for a good end.
func readUpTo(r io.Reader, limit int) ([]byte, error) {
	p := make([]byte, limit)
	for n := 0; n < limit; {
		m, err := r.Read(p[n:])
		n += m
		if err == io.EOF {
			return p[:n], nil
		}
		if err != nil {
			return p[:n], err
		}
	}
	return p, nil
}
