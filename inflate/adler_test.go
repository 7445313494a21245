package inflate

import (
	"bytes"
	"hash/adler32"
	"math/rand/v2"
	"testing"
)

func TestAdler32(t *testing.T) {
	p := make([]byte, 3<<20)
	rand.NewChaCha8([32]byte{1}).Read(p)
	for _, p := range [][]byte{p, bytes.Repeat([]byte{0xff}, len(p)), make([]byte, len(p))} {
		for n := 0; n < 1003; n += 1 + n/300 {
			if n >= 1000 {
				n = 1<<20 - 1000 + n
			}
			if got, want := adler(p[n:2*n]), adler32.Checksum(p[n:2*n]); got != want {
				t.Fatalf("%d bytes: %#x, want %#x", n, got, want)
			}
		}
		if got, want := adler(p), adler32.Checksum(p); got != want {
			t.Fatalf("%d bytes: %#x, want %#x", len(p), got, want)
		}
	}
}

// What a processor without vectors computes is the same.
func TestSumWords(t *testing.T) {
	p := make([]byte, adlerStretch)
	rand.NewChaCha8([32]byte{2}).Read(p)
	for _, p := range [][]byte{p, bytes.Repeat([]byte{0xff}, len(p)), make([]byte, len(p))} {
		for n := 0; n <= len(p); n += adlerGroup {
			sum, weighted := sumLanes(p[:n])
			if s, w := sumWords(p[:n]); s != sum || w != weighted {
				t.Fatalf("%d bytes: %d, %d, want %d, %d", n, s, w, sum, weighted)
			}
		}
	}
}

func BenchmarkAdler32(b *testing.B) {
	p := make([]byte, 64<<10)
	b.Run("lanes", func(b *testing.B) {
		b.SetBytes(int64(len(p)))
		for b.Loop() {
			adler(p)
		}
	})
	b.Run("words", func(b *testing.B) {
		b.SetBytes(adlerStretch)
		for b.Loop() {
			sumWords(p[:adlerStretch])
		}
	})
	b.Run("std", func(b *testing.B) {
		b.SetBytes(int64(len(p)))
		for b.Loop() {
			adler32.Checksum(p)
		}
	})
}
