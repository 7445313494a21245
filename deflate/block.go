package deflate

import (
	"encoding/binary"
	"math/bits"
)

const (
	// maxTokens is about how many literals and matches share a code, at most.
	maxTokens = 1 << 14
	// minBlock is how many bytes share one, at least.
	minBlock = 5000
	// maxStored is the most bytes of one stored block (3.2.4).
	maxStored = 1<<16 - 1

	litLenCodes = 288 // the last two never occur, but have a place in the fixed code
	distCodes   = 30
	endOfBlock  = 256
	maxCodeLen  = 15
)

// The types of blocks (3.2.3).
const (
	typeStored  = 0
	typeFixed   = 1
	typeDynamic = 2
)

// token is a literal or a match: from the lowest bit on, its distance less one in 15 bits, the distance's
// symbol in 5, its length in 9. A literal has no length, and its byte in the distance's place.
type token uint32

const (
	symbolShift = 15
	lengthShift = 20
)

// The extra bits of lengths and distances by their symbol, and the first of each that has it (3.2.5).
var (
	lengthBase, lengthExtra = ranges(29, 8, 4, minMatch)
	distBase, distExtra     = ranges(distCodes, 4, 2, 0)
	// lengthSymbol is by length less minMatch.
	lengthSymbol = func() (list [maxMatch - minMatch + 1]uint8) {
		for s := range lengthBase {
			for l := int(lengthBase[s]); l < int(lengthBase[s])+1<<lengthExtra[s] && l <= maxMatch; l++ {
				list[l-minMatch] = uint8(s)
			}
		}
		return list
	}()
)

// ranges returns the table of n symbols whose first ones, plain of them, stand for one value each, from
// first on; then each step of them have a bit more than the ones before.
func ranges(n, plain, step int, first uint32) (base []uint32, extra []uint32) {
	for s := range n {
		e := uint32(0)
		if s >= plain {
			e = uint32((s-plain)/step) + 1
		}
		base, extra = append(base, first), append(extra, e)
		first += 1 << e
	}
	if plain == 8 { // lengths: the longest has a symbol of its own
		base[n-1], extra[n-1] = maxMatch, 0
	}
	return base, extra
}

// distSymbol is the symbol of a distance less one.
func distSymbol(d uint32) uint32 {
	if d < 4 {
		return d
	}
	n := uint32(bits.Len32(d)) - 2
	return 2*(n+1) + d>>n&1
}

// block collects the tokens of a block and writes it.
type block struct {
	tokens []token
	// How often the symbols occur.
	litLen [litLenCodes]uint32
	dist   [distCodes]uint32
	split  splitter

	litLens   [litLenCodes]uint8
	distLens  [distCodes]uint8
	litCodes  [litLenCodes]code
	lenCodes  [maxMatch + 1]code // by length, with its extra bits
	distCodes [distCodes]code
	header    header
	builder   builder
}

func (b *block) literal(v byte) {
	b.litLen[v]++
	b.split.literal(v)
	b.tokens = append(b.tokens, token(v))
}

func (b *block) match(length, distance int) {
	d := uint32(distance - 1)
	s := distSymbol(d)
	b.litLen[endOfBlock+1+uint32(lengthSymbol[length-minMatch])]++
	b.dist[s]++
	b.split.match(length)
	b.tokens = append(b.tokens, token(uint32(length)<<lengthShift|s<<symbolShift|d))
}

// full says whether the block, of n bytes of input, had better end where so many are left.
func (b *block) full(n, left int) bool {
	return len(b.tokens) >= maxTokens || left >= minBlock && b.split.ends(n)
}

// flush writes the tokens, which stand for src, in the shortest form there is.
func (b *block) flush(w *bitWriter, src []byte, last bool) {
	b.litLen[endOfBlock]++
	final := uint32(0)
	if last {
		final = 1
	}
	b.builder.lengths(b.litLens[:], b.litLen[:], maxCodeLen)
	b.builder.lengths(b.distLens[:], b.dist[:], maxCodeLen)
	b.header.make(&b.builder, &b.litLens, &b.distLens)
	extra := cost(lengthExtra, b.litLen[endOfBlock+1:]) + cost(distExtra, b.dist[:])
	dynamic := b.header.bits() + extra + cost(b.litLens[:], b.litLen[:]) + cost(b.distLens[:], b.dist[:])
	fixed := extra + cost(fixedLitLens[:], b.litLen[:]) + cost(fixedDistLens[:], b.dist[:])
	switch stored := storedBits(len(src)); {
	case stored < min(fixed, dynamic):
		w.stored(src, final)
	case fixed <= dynamic:
		w.write(final|typeFixed<<1, 3)
		b.write(w, &fixedLitLens, &fixedDistLens, fixed)
	default:
		w.write(final|typeDynamic<<1, 3)
		b.header.write(w)
		b.write(w, &b.litLens, &b.distLens, dynamic)
	}
	b.tokens = b.tokens[:0]
	clear(b.litLen[:])
	clear(b.dist[:])
	b.split = splitter{}
}

// cost is how many bits the symbols take that occur so often.
func cost[T uint8 | uint32](lens []T, counts []uint32) (n int) {
	for i, l := range lens {
		n += int(l) * int(counts[i])
	}
	return n
}

// storedBits is about how many bits n bytes take that are stored, at least.
func storedBits(n int) int { return 8 * (n + 4*max(1, (n+maxStored-1)/maxStored)) }

// write writes the tokens and the end of the block in codes of these lengths: size bits at most.
func (b *block) write(w *bitWriter, litLens *[litLenCodes]uint8, distLens *[distCodes]uint8, size int) {
	assign(b.litCodes[:], litLens[:])
	assign(b.distCodes[:], distLens[:])
	for i, s := range lengthSymbol {
		c := b.litCodes[endOfBlock+1+int(s)]
		extra := uint32(i) + minMatch - lengthBase[s]
		b.lenCodes[i+minMatch] = code{c.bits | extra<<c.n, c.n + lengthExtra[s]}
	}
	out := w.room(size/8 + 1)
	held, n, at := w.held, w.n, 0
	for _, t := range b.tokens {
		length := t >> lengthShift
		if length == 0 {
			c := b.litCodes[t&0xff]
			held |= uint64(c.bits) << n
			n += c.n
		} else {
			c := b.lenCodes[length]
			held |= uint64(c.bits) << n
			n += c.n
			s := t >> symbolShift & 31
			c = b.distCodes[s]
			held |= uint64(c.bits|(uint32(t&(1<<symbolShift-1))-distBase[s])<<c.n) << n
			n += c.n + distExtra[s]
		}
		// 7 bits and a match of 20 and 28 at most.
		binary.LittleEndian.PutUint64(out[at:], held)
		at += int(n / 8)
		held >>= n &^ 7
		n &= 7
	}
	w.took(at, held, n)
	c := b.litCodes[endOfBlock]
	w.write(c.bits, c.n)
}

// bitWriter appends bits, the lowest first.
type bitWriter struct {
	out  []byte
	held uint64
	n    uint32 // bits held, fewer than 8
}

// write appends the n lowest bits of v, at most 32. The others are zero.
func (w *bitWriter) write(v, n uint32) {
	w.held |= uint64(v) << w.n
	for w.n += n; w.n >= 8; w.n -= 8 {
		w.out = append(w.out, byte(w.held))
		w.held >>= 8
	}
}

// wordBytes is how many bytes are written at once.
const wordBytes = 8

// room returns room for n bytes to follow, and a word more.
func (w *bitWriter) room(n int) []byte {
	if free := cap(w.out) - len(w.out); free < n+wordBytes {
		w.out = append(w.out, make([]byte, n+wordBytes)...)[:len(w.out)]
	}
	return w.out[len(w.out):cap(w.out)]
}

// took says that n bytes were written there, and what is held now.
func (w *bitWriter) took(n int, held uint64, bits uint32) {
	w.out = w.out[:len(w.out)+n]
	w.held, w.n = held, bits
}

// align fills up the last byte with zeros.
func (w *bitWriter) align() {
	if w.n > 0 {
		w.write(0, 8-w.n)
	}
}

// stored writes p as it is, in blocks of which the last one is final if that is 1 (3.2.4).
func (w *bitWriter) stored(p []byte, final uint32) {
	for {
		q := p[:min(len(p), maxStored)]
		p = p[len(q):]
		if len(p) == 0 {
			w.write(final|typeStored<<1, 3)
		} else {
			w.write(typeStored<<1, 3)
		}
		w.align()
		n := uint16(len(q))
		w.out = binary.LittleEndian.AppendUint16(w.out, n)
		w.out = binary.LittleEndian.AppendUint16(w.out, ^n)
		w.out = append(w.out, q...)
		if len(p) == 0 {
			return
		}
	}
}

// finish returns all bytes.
func (w *bitWriter) finish() []byte {
	w.align()
	return w.out
}
