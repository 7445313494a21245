package sha256lanes

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/klauspost/cpuid/v2"
)

// state is the hash values H0 to H7 of the messages: a vector has one of each.
type state [8][Lanes]uint32

// initial is the hash value to begin with (FIPS 180-4, section 5.3.3).
var initial = [8]uint32{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}

// wideBlocks hashes n blocks of 64 bytes of each message, at least one. It needs AVX-512 F and VL, of which it uses
// rotations, logic of three and registers: no vectors of 512 bits, for which processors lower their clock.
//
//go:noescape
func wideBlocks(state *state, messages *[Lanes]*byte, n int)

// narrowBlocks is wideBlocks with AVX2.
//
//go:noescape
func narrowBlocks(state *state, messages *[Lanes]*byte, n int)

// kernel hashes blocks, and fewest is for how many messages it is faster than one after the other: its time does not
// depend on how many there are.
type kernel struct {
	blocks func(state *state, messages *[Lanes]*byte, n int)
	fewest int
}

var wide, narrow = kernel{wideBlocks, 1}, kernel{narrowBlocks, 2}

// fastest is what is best on this processor. Instructions for SHA-256, which crypto/sha256 uses, are better.
var fastest = func() kernel {
	switch c := cpuid.CPU; {
	case c.Supports(cpuid.SHA, cpuid.SSSE3, cpuid.SSE4):
		return kernel{}
	case c.Supports(cpuid.AVX2, cpuid.AVX512F, cpuid.AVX512VL):
		return wide
	case c.Supports(cpuid.AVX2):
		return narrow
	}
	return kernel{}
}()

// Parallel says whether Sum is faster with more messages.
func Parallel() bool { return fastest.blocks != nil }

const (
	blockSize = sha256.BlockSize
	// step bounds how many blocks a kernel hashes before others may run, the garbage collector among them: a
	// goroutine can't be interrupted within. 32 KiB of each message take a quarter of a millisecond.
	step = 32 << 10 / blockSize
)

func sumLanes(sums *[Lanes][sha256.Size]byte, messages [][]byte) bool {
	if fastest.blocks == nil || len(messages) < fastest.fewest {
		return false
	}
	fastest.sum(sums, messages)
	return true
}

// sum hashes messages, at least one, of the same length.
func (k kernel) sum(sums *[Lanes][sha256.Size]byte, messages [][]byte) {
	var s state
	for i, v := range initial {
		for lane := range s[i] {
			s[i][lane] = v
		}
	}
	size := len(messages[0])
	for off := 0; off+blockSize <= size; {
		n := min((size-off)/blockSize, step)
		k.blocks(&s, pointers(messages, off), n)
		off += n * blockSize
	}
	// What is left, a bit, zeros, and the length in bits (FIPS 180-4, section 5.1.1).
	var ends [Lanes][2 * blockSize]byte
	rest := size % blockSize
	blocks := 1
	if rest+1+8 > blockSize {
		blocks = 2
	}
	tails := make([][]byte, len(messages))
	for i, m := range messages {
		end := ends[i][:blocks*blockSize]
		copy(end, m[size-rest:])
		end[rest] = 0x80
		binary.BigEndian.PutUint64(end[len(end)-8:], uint64(size)*8)
		tails[i] = end
	}
	k.blocks(&s, pointers(tails, 0), blocks)
	for lane := range messages {
		for i := range s {
			binary.BigEndian.PutUint32(sums[lane][4*i:], s[i][lane])
		}
	}
}

// pointers returns where the messages are at off. Lanes that are left over get the first message.
func pointers(messages [][]byte, off int) *[Lanes]*byte {
	var p [Lanes]*byte
	for lane := range p {
		m := messages[0]
		if lane < len(messages) {
			m = messages[lane]
		}
		p[lane] = &m[off]
	}
	return &p
}
