package deflate

import (
	"encoding/binary"
	"math/bits"
)

const (
	minMatch  = 3
	maxMatch  = 258
	maxWindow = 1 << MaxWindowBits
	// tooFar is the distance in bytes above which a match of three bytes takes more bits than they do.
	tooFar   = 4096
	hashBits = 15
	hashSize = 1 << hashBits
)

// finder finds matches. Positions in its tables count on from one buffer to the next, so that what is
// left in them from earlier ones is seen to be too far back.
type finder struct {
	window int
	base   int // what is added to a position in the buffer
	end    int // above all positions in the tables

	last3 [hashSize]int32  // the last position with this hash of three bytes
	last4 [hashSize]int32  // and of four
	prev  [maxWindow]int32 // by position: the one before with the same hash of four bytes
}

// begin makes room for the positions of a buffer of n bytes.
func (f *finder) begin(n int) {
	const far = 1 << 30
	if f.end == 0 || f.end > far {
		clear(f.last3[:])
		clear(f.last4[:])
		f.end = 1 // position 0 in the tables is that of nothing
	}
	f.base = f.end + f.window
	f.end = f.base + n
}

func hash(v uint32) uint32 { return v * 0x9e3779b1 >> (32 - hashBits) }

// insert notes the positions from pos up to end.
func (f *finder) insert(src []byte, pos, end int) {
	end = min(end, len(src)-3)
	mask := f.window - 1
	for ; pos < end; pos++ {
		here := load32(src, pos)
		at := f.base + pos
		f.last3[hash(here<<8)] = int32(at)
		h := hash(here)
		f.prev[at&mask&(maxWindow-1)] = f.last4[h]
		f.last4[h] = int32(at)
	}
}

// find notes the position, and returns the longest match for it that is longer than known, from
// minMatch-1 on; or less. It looks at depth candidates at most, and for none longer than nice.
func (f *finder) find(src []byte, pos, known, depth, nice int) (length, distance int) {
	if pos+4 > len(src) {
		return 0, 0
	}
	here := load32(src, pos)
	at := f.base + pos
	mask := f.window - 1
	h3, h4 := hash(here<<8), hash(here)
	near, candidate := int(f.last3[h3]), int(f.last4[h4])
	f.last3[h3], f.last4[h4] = int32(at), int32(at)
	f.prev[at&mask&(maxWindow-1)] = int32(candidate)

	oldest := at - f.window // too far back: its place in prev is taken
	if known < minMatch {
		if near <= oldest {
			return 0, 0 // four equal bytes would begin with three
		}
		if p := near - f.base; (load32(src, p)^here)<<8 == 0 {
			length, distance = minMatch, pos-p
		}
		known = minMatch
	}
	most := min(maxMatch, len(src)-pos)
	if known >= most {
		return length, distance
	}
	// What is longer has the same four bytes up to where the longest one so far ends.
	tail := load32(src, pos+known-3)
	for ; candidate > oldest && depth > 0; depth-- {
		p := candidate - f.base
		if load32(src, p+known-3) == tail && load32(src, p) == here {
			if n := matching(src[p:], src[pos:pos+most]); n > known {
				length, distance, known = n, pos-p, n
				if n >= nice || n == most {
					break
				}
				tail = load32(src, pos+n-3)
			}
		}
		candidate = int(f.prev[candidate&mask&(maxWindow-1)])
	}
	return length, distance
}

// latest notes the position, and returns the match with the last one noted that has the same hash, if it
// has four bytes or more.
func (f *finder) latest(src []byte, pos int) (length, distance int) {
	if pos+4 > len(src) {
		return 0, 0
	}
	here := load32(src, pos)
	at := f.base + pos
	h := hash(here)
	candidate := int(f.last4[h])
	f.last4[h] = int32(at)
	if candidate <= at-f.window {
		return 0, 0
	}
	p := candidate - f.base
	if load32(src, p) != here {
		return 0, 0
	}
	return matching(src[p:], src[pos:min(pos+maxMatch, len(src))]), pos - p
}

// note notes a position for latest.
func (f *finder) note(src []byte, pos int) {
	if pos+4 <= len(src) {
		f.last4[hash(load32(src, pos))] = int32(f.base + pos)
	}
}

// better says whether the match n at distance d, a byte or two later, is worth the literals before it: a
// byte more is worth four times as much as a distance of half the bits, and margin stands for the
// literals.
func better(n, d, length, distance, margin int) bool {
	return n >= length && 4*(n-length)+bits.Len(uint(distance))-bits.Len(uint(d)) > margin
}

// matching returns how many bytes are the same at the start of a and b; b is the shorter one.
func matching(a, b []byte) int {
	a = a[:len(b)]
	n := 0
	for ; n+8 <= len(b); n += 8 {
		if x := binary.LittleEndian.Uint64(a[n:]) ^ binary.LittleEndian.Uint64(b[n:]); x != 0 {
			return n + bits.TrailingZeros64(x)/8
		}
	}
	for n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

func load32(p []byte, at int) uint32 { return binary.LittleEndian.Uint32(p[at:]) }
