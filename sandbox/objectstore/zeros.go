package objectstore

import (
	"crypto/md5"
	"encoding"
	"sync"
)

const (
	// zeroStep is the distance of the known states in zeroSums, in bytes: about 0.1 s of MD5.
	zeroStep = 64 << 20
	// zeroLengths is how many sums are kept. Sparse uploads copy few different lengths.
	zeroLengths = 256
)

// zeroSums knows the MD5 of long runs of zeros. Sparse disks are uploaded as copies of up to 5 GiB
// of zeros; hashing each would take longer than everything else. It takes about 20 KiB of memory.
type zeroSums struct {
	mu     sync.Mutex
	states [][]byte // after (i+1) * zeroStep bytes
	sums   map[int64][md5.Size]byte
}

// sum returns the MD5 of n zero bytes, at most maxBody.
func (z *zeroSums) sum(n int64) [md5.Size]byte {
	z.mu.Lock()
	defer z.mu.Unlock()
	if sum, ok := z.sums[n]; ok {
		return sum
	}
	if len(z.sums) >= zeroLengths || z.sums == nil {
		z.sums = make(map[int64][md5.Size]byte)
	}
	z.sums[n] = z.compute(n)
	return z.sums[n]
}

func (z *zeroSums) compute(n int64) (sum [md5.Size]byte) {
	h := md5.New()
	known := min(n/zeroStep, int64(len(z.states)))
	if known > 0 {
		// The state is one that MarshalBinary gave, so that it can't be refused.
		h.(encoding.BinaryUnmarshaler).UnmarshalBinary(z.states[known-1])
	}
	var zeros [64 << 10]byte
	for done := known * zeroStep; done < n; {
		m, _ := h.Write(zeros[:min(n-done, int64(len(zeros)))])
		done += int64(m)
		if done%zeroStep == 0 {
			state, _ := h.(encoding.BinaryMarshaler).MarshalBinary()
			z.states = append(z.states, state)
		}
	}
	h.Sum(sum[:0])
	return sum
}
