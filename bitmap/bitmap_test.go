package bitmap_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"imgferry/bitmap"
)

func ExampleBitmap() {
	b := bitmap.New(bitmap.Blocks(100 << 20)) // a disk of 100 MiB
	b.Set(0)
	b.Set(9)
	mf := b.Append(nil)
	fmt.Println(b.Count(), "of", b.Len(), "blocks;", len(mf), "bytes, first", mf[:2])
	// Output: 2 of 50 blocks; 4096 bytes, first [1 2]
}

func TestAppendParse(t *testing.T) {
	for _, n := range []int64{1, 7, 8, 9, 32767, 32768, 32769, 65536, 65537} {
		b := bitmap.New(n)
		for i := int64(0); i < n; i += 1 + i%13 {
			b.Set(i)
		}
		b.Set(n - 1)
		p := b.Append([]byte{0xff})[1:]
		if int64(len(p)) != bitmap.StoredSize(n) || len(p)%4096 != 0 {
			t.Fatalf("%d blocks: %d bytes", n, len(p))
		}
		got, err := bitmap.Parse(p, n)
		if err != nil {
			t.Fatalf("%d blocks: %v", n, err)
		}
		if got.Count() != b.Count() || !bytes.Equal(got.Append(nil), p) {
			t.Fatalf("%d blocks: parse of append differs", n)
		}
		for i := range n {
			if got.Get(i) != b.Get(i) {
				t.Fatalf("%d blocks: block %d", n, i)
			}
		}
	}
}

func TestParseRefuses(t *testing.T) {
	good := bitmap.New(50).Append(nil)
	flip := func(i int, bit byte) []byte {
		p := bytes.Clone(good)
		p[i] ^= bit
		return p
	}
	for name, p := range map[string][]byte{
		"empty": nil, "short": good[:4095], "long": append(bytes.Clone(good), 0),
		"bit 50": flip(6, 1<<2), "byte 7": flip(7, 1), "last byte": flip(4095, 0x80),
	} {
		if _, err := bitmap.Parse(p, 50); !errors.Is(err, bitmap.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if b, err := bitmap.Parse(flip(6, 1<<1), 50); err != nil || !b.Get(49) {
		t.Errorf("bit 49: %v", err)
	}
}

func TestBlocks(t *testing.T) {
	for size, want := range map[int64]int64{-1: 0, 0: 0, 1: 1, 2 << 20: 1, 2<<20 + 1: 2, 1 << 40: 524288, 1<<63 - 1: 1 << 42} {
		if got := bitmap.Blocks(size); got != want {
			t.Errorf("%d bytes: %d blocks, want %d", size, got, want)
		}
	}
}

func TestIsZero(t *testing.T) {
	for _, n := range []int{0, 1, 63, 64, 65, 127, 128, 4096, 4097} {
		p := make([]byte, n)
		if !bitmap.IsZero(p) {
			t.Fatalf("%d zeros", n)
		}
		for i := range p {
			p[i] = 1
			if bitmap.IsZero(p) {
				t.Fatalf("%d bytes, 1 at %d", n, i)
			}
			p[i] = 0
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(bitmap.New(50).Append(nil), int64(50))
	f.Add([]byte{}, int64(0))
	f.Fuzz(func(t *testing.T, p []byte, n int64) {
		if n < 0 || n > 1<<24 {
			return
		}
		b, err := bitmap.Parse(p, n)
		if err == nil && !bytes.Equal(b.Append(nil), p) {
			t.Fatal("append of parse differs")
		}
	})
}

func BenchmarkIsZero(b *testing.B) {
	p := make([]byte, bitmap.BlockSize)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		if !bitmap.IsZero(p) {
			b.Fatal()
		}
	}
}
