package objectstore

import (
	"crypto/md5"
	"encoding"
	"sync"
)

// zeroStep is the distance of the known states in zeroSums, in bytes: about 0.1 s of MD5.
const zeroStep = 64 << 20

// zeroSums knows the MD5 of long runs of zeros. Sparse disks are uploaded as copies of up to 1 GiB
// of zeros; hashing each would take longer than everything else. The states kept take about 100
// bytes for each 64 MiB of the longest run asked for, at most 5 GiB.
type zeroSums struct {
	mu     sync.Mutex
	states [][]byte // after (i+1) * zeroStep bytes
}

// sum returns the MD5 of n zero bytes.
func (z *zeroSums) sum(n int64) (sum [md5.Size]byte) {
	z.mu.Lock()
	defer z.mu.Unlock()
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
