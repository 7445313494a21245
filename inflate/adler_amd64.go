package inflate

import "golang.org/x/sys/cpu"

// adlerBlock is the bytes of a vector.
const adlerBlock = 32

// adlerVectors is what sumVectors finds out, each in lanes that are to be added up: the sum of all bytes; of each
// block that of all bytes before it; and of each block that of its own, the first counted 32 times, the last once.
type adlerVectors struct{ sum, before, within [8]uint32 }

// sumVectors sums whole blocks of p, at most adlerStretch bytes. It needs AVX2.
//
//go:noescape
func sumVectors(p []byte, v *adlerVectors)

// sumLanes is sumWords, several times as fast where the processor has AVX2.
func sumLanes(p []byte) (sum, weighted uint64) {
	if !cpu.X86.HasAVX2 {
		return sumWords(p)
	}
	var v adlerVectors
	sumVectors(p, &v)
	for i := range v.sum {
		sum += uint64(v.sum[i])
		weighted += adlerBlock*uint64(v.before[i]) + uint64(v.within[i])
	}
	return sum, weighted
}
