package inflate

import (
	"math/bits"
	"slices"
)

// The sizes of RFC 1951's codes.
const (
	maxCodeLen  = 15  // bits of the longest literal/length or distance code (3.2.7)
	litlenCodes = 288 // 3.2.6; the last two never occur
	distCodes   = 32  // 3.2.6; the last two never occur
	maxLitlen   = 286 // the most that a dynamic block may define (3.2.7)
	maxDist     = 30
	preCodes    = 19 // the code length alphabet (3.2.7)
	endOfBlock  = 256
)

// A code is decoded with one look into its primary table, indexed by the next bits of the stream,
// and a second one into a subtable for codes that are longer. The subtables follow the primary
// table. Sizes are powers of two, so that a masked index needs no bounds check; what is in use is
// less: with 288 symbols and 11 bits at most 2342 entries, with 32 and 8 bits at most 402, with 19
// and 7 bits 128 (zlib's examples/enough.c computes these).
const (
	litlenBits = 11
	distBits   = 8
	preBits    = 7

	litlenMask = 1<<12 - 1
	distMask   = 1<<9 - 1
)

type (
	litlenTable [litlenMask + 1]entry
	distTable   [distMask + 1]entry
	preTable    [1 << preBits]entry
)

type tables struct {
	litlen litlenTable
	dist   distTable
}

// entry is what a table says about the next bits of the stream. Its low 6 bits are how many bits it
// takes off the stream, extra bits included: a shift count as it is.
//
//	literal    bit 31; the byte in 16-23; code length in 8-11 and 0-5
//	length     its base in 16-30; code length in 8-11; code and extra bits in 0-5
//	distance   as length
//	subtable   bits 14 and 15; its start in 16-29; the bits of its index in 8-11; those of the primary table in 0-5
//	end        bits 13 and 15; code length in 8-11 and 0-5
//	no symbol  bit 15; code length in 8-11 and 0-5
//	pre        the code length symbol in 16-20; code length in 8-11 and 0-5
//
// Code lengths in a subtable count from the end of the primary table's bits.
type entry uint32

const (
	isLiteral  entry = 1 << 31
	isSpecial  entry = 1 << 15 // one of the following, or no symbol
	isSubtable entry = 1 << 14
	isEnd      entry = 1 << 13
)

// masks[n] has its n low bits set. Looking it up is faster than shifting.
var masks = func() (m [64]uint64) {
	for i := range m {
		m[i] = 1<<i - 1
	}
	return m
}()

// extra returns the value plus the extra bits, with saved the stream from the entry's code on.
func (e entry) extra(saved uint64) uint {
	return uint(saved&masks[e&63]>>(e>>8&63)) + uint(e>>16)
}

// inSubtable returns the index of the entry that a subtable entry leads to, with buf the stream after
// the primary table's bits.
func (e entry) inSubtable(buf uint64) uint {
	return uint(e>>16&0x3fff) + uint(buf&masks[e>>8&15])
}

// ofLength returns the entry with a code of n bits.
func (e entry) ofLength(n uint) entry { return e + entry(n<<8|n) }

// The entries of the symbols, yet without their code lengths.
var (
	litlenSymbols = makeLitlenSymbols()
	distSymbols   = makeDistSymbols()
	preSymbols    = makePreSymbols()
)

// makeLitlenSymbols makes the table of RFC 1951, 3.2.5.
func makeLitlenSymbols() (t [litlenCodes]entry) {
	for i := range endOfBlock {
		t[i] = isLiteral | entry(i)<<16
	}
	t[endOfBlock] = isSpecial | isEnd
	base := entry(3)
	for i := endOfBlock + 1; i < maxLitlen-1; i++ {
		n := entry(max(0, (i-(endOfBlock+1))/4-1))
		t[i] = base<<16 | n
		base += 1 << n
	}
	t[maxLitlen-1] = 258 << 16 // and not one of 31 with 5 extra bits
	t[maxLitlen], t[maxLitlen+1] = isSpecial, isSpecial
	return t
}

// makeDistSymbols makes the table of RFC 1951, 3.2.5.
func makeDistSymbols() (t [distCodes]entry) {
	base := entry(1)
	for i := range maxDist {
		n := entry(max(0, i/2-1))
		t[i] = base<<16 | n
		base += 1 << n
	}
	t[maxDist], t[maxDist+1] = isSpecial, isSpecial
	return t
}

func makePreSymbols() (t [preCodes]entry) {
	for i := range t {
		t[i] = entry(i) << 16
	}
	return t
}

// build fills table, whose primary part has 1<<primary entries, for the code with these lengths
// (RFC 1951, 3.2.2). It reports whether the code is complete: each sequence of bits begins with one
// code, and one only. As in zlib, a code of a single bit alone is allowed too, and so is an empty
// one: using what they lack is the error.
func build(table []entry, primary uint, lengths []uint8, symbols []entry) bool {
	var count [maxCodeLen + 1]uint
	for _, n := range lengths {
		count[n&15]++
	}
	var first [maxCodeLen + 2]uint // of each length, in the order of the codes
	space := uint(0)
	for n := 1; n <= maxCodeLen; n++ {
		first[n+1] = first[n] + count[n]
		space = space<<1 + count[n]
	}
	if space != 1<<maxCodeLen {
		return buildPartial(table[:1<<primary], lengths, symbols, first[maxCodeLen+1])
	}
	var sorted [litlenCodes]entry
	for i, n := range lengths {
		if n != 0 {
			sorted[first[n&15]] = symbols[i]
			first[n&15]++
		}
	}

	// Codes are counted up with their first bit as the highest, but come from the stream with it as
	// the lowest. While they fit into the primary table, it has the size of the current length's
	// codes and doubles when the length grows.
	rest := sorted[:]
	code, size := uint(0), uint(1)
	for n := uint(1); n <= primary; n++ {
		copy(table[size:2*size], table[:size])
		size *= 2
		for range count[n] {
			table[code] = rest[0].ofLength(n)
			rest = rest[1:]
			code = after(code, size)
		}
	}
	// Longer codes: those with the same primary bits share a subtable, big enough for the longest.
	// The table's end is where the next one starts.
	end, inUse := size, size // no prefix has been in use yet
	var start uint
	for n := primary + 1; n <= maxCodeLen; n++ {
		for ; count[n] > 0; count[n]-- {
			if prefix := code & (size - 1); prefix != inUse {
				inUse, start = prefix, end
				index := n - primary
				for room := count[n]; room < 1<<index; {
					index++
					room = room<<1 + count[primary+index]
				}
				end += 1 << index
				table[prefix] = isSpecial | isSubtable | entry(start<<16|index<<8|primary)
			}
			e := rest[0].ofLength(n - primary)
			rest = rest[1:]
			for i := start + code>>primary; i < end; i += 1 << (n - primary) {
				table[i] = e
			}
			code = after(code, 1<<n)
		}
	}
	return true
}

// after returns the code after code, both with their bits in the order of the stream, in a code of
// size codes: it adds one at the top bit and carries downwards. After the last one comes 0.
func after(code, size uint) uint {
	free := ^code & (size - 1)
	if free == 0 {
		return 0
	}
	bit := uint(1) << (bits.Len(free) - 1)
	return code&(bit-1) | bit
}

// buildPartial is build for a code that isn't complete, of n symbols.
func buildPartial(table []entry, lengths []uint8, symbols []entry, n uint) bool {
	if n > 1 {
		return false
	}
	for i := range table {
		table[i] = isSpecial
	}
	if n == 0 {
		return true
	}
	i := slices.IndexFunc(lengths, func(n uint8) bool { return n != 0 })
	if lengths[i] != 1 {
		return false
	}
	for j := range table {
		table[j] = isSpecial | 1<<8 | 1
		if j&1 == 0 {
			table[j] = symbols[i].ofLength(1)
		}
	}
	return true
}
