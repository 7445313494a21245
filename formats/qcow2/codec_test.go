package qcow2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func frame(t testing.TB, p []byte, opts ...zstd.EOption) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil, append([]zstd.EOption{zstd.WithEncoderConcurrency(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(p, nil)
}

func TestDecodeZstd(t *testing.T) {
	const n = 300_000 // three blocks
	want := bytes.Repeat([]byte("all work and no play makes jack a dull boy. "), n/44+1)[:n]
	want[n-1] = 'x'
	zeros := make([]byte, n)
	skippable := append(binary.LittleEndian.AppendUint32([]byte("\x52\x2a\x4d\x18"), 5), "hello"...)
	plain := frame(t, want)
	join := func(p ...[]byte) []byte { return bytes.Join(p, nil) }
	// A window declared larger than the cluster, as streaming writers do. RFC 8878, 3.1.1.1.2.
	window := join(plain[:4], []byte{plain[4] &^ 0x20, (27 - 10) << 3}, plain[5:])
	for name, c := range map[string]struct {
		src, want []byte
		err       error
	}{
		"one frame":          {plain, want, nil},
		"with a checksum":    {frame(t, want, zstd.WithEncoderCRC(true)), want, nil},
		"without":            {frame(t, want, zstd.WithEncoderCRC(false)), want, nil},
		"one run":            {frame(t, zeros), zeros, nil},
		"incompressible":     {frame(t, noise(n)), noise(n), nil},
		"zeros behind":       {join(plain, make([]byte, 511)), want, nil},
		"next frame behind":  {join(plain, plain), want, nil},
		"noise behind":       {join(plain, noise(300)), want, nil},
		"two frames":         {join(frame(t, want[:1000]), frame(t, want[1000:])), want, nil},
		"skippable":          {join(skippable, plain), want, nil},
		"empty frame first":  {join(frame(t, nil, zstd.WithZeroFrames(true)), plain), want, nil},
		"window of 128 MiB":  {window, want, nil},
		"empty":              {nil, nil, errFrame},
		"zeros":              {zeros[:512], nil, errFrame},
		"magic only":         {plain[:4], nil, errFrame},
		"cut in a header":    {plain[:12], nil, errShort},
		"cut":                {plain[:len(plain)-1], nil, errShort},
		"one byte less":      {frame(t, want[1:]), nil, errShort},
		"one byte more":      {frame(t, append(want[:n:n], 0)), nil, errTooLong},
		"16 bytes more":      {frame(t, append(want[:n:n], zeros[:16]...)), nil, errTooLong},
		"17 bytes more":      {frame(t, append(want[:n:n], zeros[:17]...)), nil, errTooLong},
		"2 MiB more":         {frame(t, append(want[:n:n], make([]byte, 2<<20)...)), nil, errTooLong},
		"two frames, one":    {join(frame(t, want[:1000]), frame(t, want)), nil, errTooLong},
		"endless skippable":  {[]byte("\x52\x2a\x4d\x18\xff\xff\xff\xff"), nil, errShort},
		"skippable, nothing": {skippable, nil, errShort},
	} {
		for _, slack := range []int{0, 1, decodeSlack, 4096} {
			buf := bytes.Repeat([]byte{0xdb}, n+slack)
			err := decodeZstd(buf[:n], c.src)
			if !errors.Is(err, c.err) {
				t.Errorf("%s, %d bytes of slack: %v, want %v", name, slack, err, c.err)
			}
			if err == nil && !bytes.Equal(buf[:n], c.want) {
				t.Errorf("%s, %d bytes of slack: content differs", name, slack)
			}
			if beyond := buf[min(n+decodeSlack, len(buf)):]; !bytes.Equal(beyond, bytes.Repeat([]byte{0xdb}, len(beyond))) {
				t.Errorf("%s, %d bytes of slack: written beyond it", name, slack)
			}
		}
	}
	// Damage ends in an error or in other bytes, never in a panic.
	for i := range plain {
		bad := bytes.Clone(plain)
		bad[i] ^= 0x40
		_ = decodeZstd(make([]byte, n), bad)
	}
}

func noise(n int) []byte {
	p := make([]byte, n)
	x := uint64(1)
	for i := range p {
		x = x*6364136223846793005 + 1442695040888963407
		p[i] = byte(x >> 56)
	}
	return p
}
