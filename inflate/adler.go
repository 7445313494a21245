package inflate

const (
	// adlerGroup is how many bytes are summed before lanes of 16 bits would overflow. What sumLanes
	// takes is a multiple of it.
	adlerGroup = 128
	// adlerStretch is how many bytes are summed at once: few enough for lanes of 32 bits.
	adlerStretch = 32 << 10
)

// adler returns the Adler-32 of p (RFC 1950, 9) like hash/adler32, which takes a third of what decoding takes.
func adler(p []byte) uint32 {
	const modulus = 65521
	s1, s2 := uint64(1), uint64(0)
	for len(p) > 0 {
		q := p[:min(len(p), adlerStretch)]
		p = p[len(q):]
		whole := len(q) &^ (adlerGroup - 1)
		sum, weighted := sumLanes(q[:whole])
		s2 += uint64(whole)*s1 + weighted
		s1 += sum
		for _, b := range q[whole:] {
			s1 += uint64(b)
			s2 += s1
		}
		s1 %= modulus
		s2 %= modulus
	}
	return uint32(s2<<16 | s1)
}

// sumWords returns the sum of the bytes of p, and their sum with the last one counted once, the one before twice,
// and so on. It takes whole groups, and eight bytes at a time.
func sumWords(p []byte) (sum, weighted uint64) {
	const secondBytes = 0x00ff00ff00ff00ff
	for ; len(p) >= adlerGroup; p = p[adlerGroup:] {
		// The sums of each second byte of all words, and how often words that follow count them.
		var even, odd, before uint64
		group := (*[adlerGroup]byte)(p)
		for i := 0; i < adlerGroup; i += 16 {
			w := load(group[:], i)
			before += even + odd
			even += w & secondBytes
			odd += w >> 8 & secondBytes
			w = load(group[:], i+8)
			before += even + odd
			even += w & secondBytes
			odd += w >> 8 & secondBytes
		}
		// Multiplying adds up lanes in the highest one. Within a word the first byte counts 8
		// times, the last once: 2*(4, 3, 2, 1) and (7, 5, 3, 1).
		before = before&0x0000ffff0000ffff + before>>16&0x0000ffff0000ffff
		weighted += adlerGroup*sum + 8*(before*0x0000000100000001>>32) +
			2*(even*0x0004000300020001>>48) + odd*0x0007000500030001>>48
		sum += (even + odd) * 0x0001000100010001 >> 48
	}
	return sum, weighted
}
