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
