package sha256lanes

import (
	"crypto/sha256"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/cpuid/v2"
)

// kernels returns those that this processor can run, by name.
func kernels(t testing.TB) map[string]kernel {
	t.Helper()
	k := map[string]kernel{}
	if cpuid.CPU.Supports(cpuid.AVX2) {
		k["AVX2"] = narrow
	}
	if cpuid.CPU.Supports(cpuid.AVX2, cpuid.AVX512F, cpuid.AVX512VL) {
		k["AVX-512"] = wide
	}
	return k
}

// TestKernels compares with crypto/sha256: every length around the ends of blocks, and of steps, and any number of
// messages.
func TestKernels(t *testing.T) {
	sizes := []int{step*blockSize - 1, step * blockSize, step*blockSize + blockSize + 7, 3*step*blockSize + 55}
	for n := range 3*blockSize + 2 {
		sizes = append(sizes, n)
	}
	random := rand.NewChaCha8([32]byte{1})
	for name, k := range kernels(t) {
		t.Run(name, func(t *testing.T) {
			for i, size := range sizes {
				messages := make([][]byte, 1+i%Lanes)
				for j := range messages {
					messages[j] = make([]byte, size+j)[j:] // unaligned
					random.Read(messages[j])
				}
				var sums [Lanes][sha256.Size]byte
				k.sum(&sums, messages)
				for j, m := range messages {
					if want := sha256.Sum256(m); sums[j] != want {
						t.Errorf("%d messages of %d bytes: message %d: %x, not %x", len(messages), size, j, sums[j], want)
					}
				}
				for j := len(messages); j < Lanes; j++ {
					if sums[j] != [sha256.Size]byte{} {
						t.Errorf("%d messages: there is a sum of message %d", len(messages), j)
					}
				}
			}
		})
	}
}

func BenchmarkKernels(b *testing.B) {
	for name, k := range kernels(b) {
		b.Run(name, func(b *testing.B) {
			messages := make([][]byte, Lanes)
			for i := range messages {
				messages[i] = make([]byte, 2<<20)
			}
			var sums [Lanes][sha256.Size]byte
			b.SetBytes(Lanes * 2 << 20)
			for b.Loop() {
				k.sum(&sums, messages)
			}
		})
	}
}
