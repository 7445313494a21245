package qcow2

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// There is no deflate encoder for Go that takes a window of 4 KiB and compresses as well as zlib's
// default level, which QEMU uses: the best loses 6 %. So this is zlib's method (hash chains, lazy
// matching; deflate_slow in its sources) for one cluster at a time. Sections are those of RFC 1951.

const (
	// deflateWindow is how far back a match may lie, in bytes. QEMU inflates with a window of 12 bits.
	deflateWindow = 4096
	minMatch      = 3
	maxMatch      = 258
	hashBits      = 15

	// maxTokens is how many literals and matches share a code.
	maxTokens = 1 << 14

	litLenCodes = 288 // the last two never occur, but have a place in the fixed code
	distCodes   = 30
	endOfBlock  = 256
	firstLength = 257
	maxCodeLen  = 15
)

// effort is how hard the encoder searches: zlib's parameters.
type effort struct {
	good  int // look at a quarter of the candidates for what must be better than this
	lazy  int // don't look for a better match than this one byte later
	nice  int // don't look for a better match than this
	chain int // candidates to look at
}

// deflateEffort is that of zlib's levels 6, 4, 8 and 9.
var deflateEffort = [...]effort{
	LevelDefault: {8, 16, 128, 128},
	LevelFastest: {4, 4, 16, 16},
	LevelBetter:  {32, 128, 258, 1024},
	LevelBest:    {32, 258, 258, 4096},
}

// deflater compresses clusters. What it makes depends on the cluster alone.
type deflater struct {
	effort
	// Positions in the tables count on from one cluster to the next, so that what is left in them from
	// earlier ones is seen to be too far back. The last cluster ends at end.
	head [1 << hashBits]int32 // the last position with this hash
	prev [deflateWindow]int32 // the one before a position that has the same hash
	end  int32

	tokens []uint32 // a literal, or a match: its length shifted by matchShift, and its distance
	// How often their symbols occur.
	litLen [litLenCodes]uint32
	dist   [distCodes]uint32

	// The block being written.
	litLens   [litLenCodes]uint8
	distLens  [distCodes]uint8
	litCodes  [litLenCodes]code
	distCodes [distCodes]code
	header    blockHeader
	builder   codeBuilder
}

const matchShift = 16

func newDeflater(l Level) *deflater {
	return &deflater{effort: deflateEffort[l], tokens: make([]uint32, 0, maxTokens)}
}

// compress appends src, at most a cluster of 2 MiB, as a raw deflate stream.
func (d *deflater) compress(dst, src []byte) []byte {
	const far = 1 << 30
	if d.end > far {
		d.end = 0
	}
	if d.end == 0 {
		clear(d.head[:])
		d.end = deflateWindow + 1 // position 0 in the tables is that of nothing
	}
	w := bitWriter{out: dst}
	base := int(d.end)
	d.end += int32(len(src)) + deflateWindow

	length, distance := minMatch-1, 0 // of the match at the position before
	pending := false                  // that position was not encoded yet
	for pos := 0; pos < len(src); pos++ {
		candidate := d.insert(src, pos, base)
		before, beforeDistance := length, distance
		length = minMatch - 1
		if before < d.lazy {
			length, distance = d.longest(src, pos, candidate, base, before)
		}
		switch {
		case before >= minMatch && length <= before:
			d.match(before, beforeDistance)
			for end := pos + before - 2; pos < end; {
				pos++
				d.insert(src, pos, base)
			}
			length, pending = minMatch-1, false
		case pending:
			d.literal(src[pos-1])
		default:
			pending = true
		}
		if len(d.tokens) >= maxTokens-1 {
			d.flush(&w, false)
		}
	}
	if pending {
		d.literal(src[len(src)-1])
	}
	d.flush(&w, true)
	return w.finish()
}

// insert notes the position, and returns the last one with the same hash, which may be anywhere.
func (d *deflater) insert(src []byte, pos, base int) int {
	if pos+4 > len(src) {
		return -1
	}
	// Three bytes decide: the shortest match.
	h := binary.LittleEndian.Uint32(src[pos:]) << 8 * 2654435761 >> (32 - hashBits)
	last := d.head[h]
	d.prev[(base+pos)%deflateWindow] = last
	d.head[h] = int32(base + pos)
	return int(last) - base
}

// longest returns the longest match for pos among the candidates, from the nearest one on, that is
// longer than known; or known or less.
func (d *deflater) longest(src []byte, pos, candidate, base, known int) (length, distance int) {
	most := min(maxMatch, len(src)-pos)
	length = known
	if most <= length {
		return minMatch - 1, 0
	}
	chain := d.chain
	if known >= d.good {
		chain /= 4
	}
	oldest := max(pos-deflateWindow+1, 0) // the place in prev of the one before is taken by pos
	here := src[pos : pos+most]
	// What is longer ends with these two bytes where the longest one so far ends.
	end := binary.LittleEndian.Uint16(here[length-1:])
	for ; candidate >= oldest && chain > 0; chain-- {
		if binary.LittleEndian.Uint16(src[candidate+length-1:]) == end {
			if n := matching(src[candidate:candidate+most], here); n > length {
				length, distance = n, pos-candidate
				if n >= d.nice || n == most {
					break
				}
				end = binary.LittleEndian.Uint16(here[length-1:])
			}
		}
		candidate = int(d.prev[(base+candidate)%deflateWindow]) - base
	}
	return length, distance
}

// matching returns how many bytes are the same at the start of two slices of one length.
func matching(a, b []byte) int {
	b = b[:len(a)]
	n := 0
	for ; n+8 <= len(a); n += 8 {
		if x := binary.LittleEndian.Uint64(a[n:]) ^ binary.LittleEndian.Uint64(b[n:]); x != 0 {
			return n + bits.TrailingZeros64(x)/8
		}
	}
	for n < len(a) && a[n] == b[n] {
		n++
	}
	return n
}

func (d *deflater) literal(b byte) {
	d.litLen[b]++
	d.tokens = append(d.tokens, uint32(b))
}

func (d *deflater) match(length, distance int) {
	c, _, _ := lengthCode(uint32(length))
	d.litLen[c]++
	c, _, _ = distanceCode(uint32(distance))
	d.dist[c]++
	d.tokens = append(d.tokens, uint32(length)<<matchShift|uint32(distance))
}

// lengthCode returns the code of a match's length, and its extra bits (3.2.5).
func lengthCode(length uint32) (symbol, extra, extraBits uint32) {
	l := length - minMatch
	switch {
	case length == maxMatch:
		return 285, 0, 0
	case l < 8:
		return firstLength + l, 0, 0
	}
	n := uint32(bits.Len32(l)) - 3
	return firstLength + 4*(n+1) + l>>n&3, l & (1<<n - 1), n
}

// distanceCode is lengthCode for its distance.
func distanceCode(distance uint32) (symbol, extra, extraBits uint32) {
	d := distance - 1
	if d < 4 {
		return d, 0, 0
	}
	n := uint32(bits.Len32(d)) - 2
	return 2*(n+1) + d>>n&1, d & (1<<n - 1), n
}

// flush writes the tokens as a block, in the shorter of both kinds of codes.
func (d *deflater) flush(w *bitWriter, last bool) {
	d.litLen[endOfBlock]++
	final := uint32(0)
	if last {
		final = 1
	}
	litLens, distLens := &d.litLens, &d.distLens
	d.builder.lengths(litLens[:], d.litLen[:], maxCodeLen)
	d.builder.lengths(distLens[:], d.dist[:], maxCodeLen)
	d.header.make(&d.builder, litLens, distLens)
	dynamic := d.header.bits() + cost(litLens[:], d.litLen[:]) + cost(distLens[:], d.dist[:])
	if fixed := cost(fixedLitLens[:], d.litLen[:]) + cost(fixedDistLens[:], d.dist[:]); fixed <= dynamic {
		w.write(final|1<<1, 3)
		litLens, distLens = &fixedLitLens, &fixedDistLens
	} else {
		w.write(final|2<<1, 3)
		d.header.write(w)
	}
	assign(d.litCodes[:], litLens[:])
	assign(d.distCodes[:], distLens[:])
	for _, t := range d.tokens {
		if t>>matchShift == 0 {
			w.write(d.litCodes[t].bits, d.litCodes[t].n)
			continue
		}
		s, extra, n := lengthCode(t >> matchShift)
		c := d.litCodes[s]
		w.write(c.bits|extra<<c.n, c.n+n)
		s, extra, n = distanceCode(t & (1<<matchShift - 1))
		c = d.distCodes[s]
		w.write(c.bits|extra<<c.n, c.n+n)
	}
	w.write(d.litCodes[endOfBlock].bits, d.litCodes[endOfBlock].n)
	d.tokens = d.tokens[:0]
	clear(d.litLen[:])
	clear(d.dist[:])
}

// cost is how many bits the symbols take, without extra bits, which are the same in all codes.
func cost(lens []uint8, counts []uint32) (n uint32) {
	for i, c := range counts {
		n += c * uint32(lens[i])
	}
	return n
}

// The fixed codes (3.2.6).
var fixedLitLens, fixedDistLens = func() (l [litLenCodes]uint8, d [distCodes]uint8) {
	for i := range l {
		switch {
		case i < 144:
			l[i] = 8
		case i < 256:
			l[i] = 9
		case i < 280:
			l[i] = 7
		default:
			l[i] = 8
		}
	}
	for i := range d {
		d[i] = 5
	}
	return l, d
}()

// code is a symbol's code, its first bit lowest.
type code struct{ bits, n uint32 }

// assign makes the codes of these lengths (3.2.2).
func assign(codes []code, lens []uint8) {
	var count, next [maxCodeLen + 2]uint32
	for _, n := range lens {
		count[n]++
	}
	count[0] = 0
	for n := 1; n <= maxCodeLen; n++ {
		next[n+1] = (next[n] + count[n]) << 1
	}
	for i, n := range lens {
		codes[i] = code{bits.Reverse32(next[n]) >> (32 - n), uint32(n)}
		next[n]++
	}
}

// codeBuilder finds the lengths of codes. It is a place for what that takes.
type codeBuilder struct {
	keys [litLenCodes]uint64
	work [litLenCodes]uint32
}

// lengths sets the lengths of the shortest code for symbols that occur so often, but none above most.
// A decoder must be given at least one code, and does with a single one.
func (b *codeBuilder) lengths(lens []uint8, counts []uint32, most int) {
	keys := b.keys[:0]
	for i, c := range counts {
		if c > 0 {
			keys = append(keys, uint64(c)<<16|uint64(i))
		}
	}
	clear(lens)
	if len(keys) < 2 {
		// Two codes of one bit are complete, which every decoder takes.
		lens[0], lens[1] = 1, 1
		if len(keys) == 1 && keys[0]&0xffff > 1 {
			lens[1], lens[keys[0]&0xffff] = 0, 1
		}
		return
	}
	slices.Sort(keys)
	work := b.work[:len(keys)]
	for i, k := range keys {
		work[i] = uint32(k >> 16)
	}
	var number [64]int // how many codes have a length
	for _, n := range minimumRedundancy(work) {
		number[n]++
	}
	limit(number[:], most)
	i := len(keys)
	for n := 1; n <= most; n++ {
		for range number[n] {
			i--
			lens[keys[i]&0xffff] = uint8(n)
		}
	}
}

// minimumRedundancy replaces at least two counts, ascending, by the lengths of their Huffman codes: the
// method in place of Moffat and Katajainen, 1995.
func minimumRedundancy(a []uint32) []uint32 {
	n := len(a)
	a[0] += a[1]
	root, leaf := 0, 2
	take := func(next int) (v uint32) {
		if leaf >= n || root < next && a[root] < a[leaf] {
			v, a[root] = a[root], uint32(next)
			root++
			return v
		}
		leaf++
		return a[leaf-1]
	}
	for next := 1; next < n-1; next++ {
		first := take(next)
		a[next] = first + take(next)
	}
	a[n-2] = 0
	for next := n - 3; next >= 0; next-- {
		a[next] = a[a[next]] + 1
	}
	available, depth := 1, uint32(0)
	root = n - 2
	for next := n - 1; available > 0; depth++ {
		used := 0
		for ; root >= 0 && a[root] == depth; root-- {
			used++
		}
		for ; available > used; available-- {
			a[next] = depth
			next--
		}
		available = 2 * used
	}
	return a
}

// limit makes codes that are longer than most shorter, and others longer in their place.
func limit(number []int, most int) {
	for n := most + 1; n < len(number); n++ {
		number[most] += number[n]
		number[n] = 0
	}
	total := 0 // in units of the longest code: the code is complete at 1<<most
	for n := 1; n <= most; n++ {
		total += number[n] << (most - n)
	}
	for ; total > 1<<most; total-- {
		number[most]--
		for n := most - 1; n > 0; n-- {
			if number[n] > 0 {
				number[n]--
				number[n+1] += 2
				break
			}
		}
	}
}

// blockHeader describes the codes of a dynamic block (3.2.7).
type blockHeader struct {
	litLens, dists int // how many lengths are stored
	all            [litLenCodes + distCodes]uint8
	// symbols are those of the code length code, extra what follows the repeating ones.
	symbols, extra []uint8
	lens           [19]uint8
	stored         int // how many of these
}

// lensOrder is the order in which they are stored.
var lensOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// repeatBits is the number of extra bits of the symbols from 16 on.
var repeatBits = [3]uint32{2, 3, 7}

func (h *blockHeader) make(b *codeBuilder, litLens *[litLenCodes]uint8, dists *[distCodes]uint8) {
	for h.litLens = litLenCodes; litLens[h.litLens-1] == 0; h.litLens-- {
	}
	for h.dists = distCodes; dists[h.dists-1] == 0; h.dists-- {
	}
	all := append(append(h.all[:0], litLens[:h.litLens]...), dists[:h.dists]...)
	h.symbols, h.extra = h.symbols[:0], h.extra[:0]
	var counts [19]uint32
	add := func(symbol uint8, extra int) {
		counts[symbol]++
		h.symbols = append(h.symbols, symbol)
		h.extra = append(h.extra, uint8(extra))
	}
	for len(all) > 0 {
		run := 1
		for run < len(all) && all[run] == all[0] {
			run++
		}
		switch {
		case all[0] == 0 && run >= 11:
			run = min(run, 138)
			add(18, run-11)
		case all[0] == 0 && run >= 3:
			add(17, run-3)
		case run >= 4:
			run = min(run, 7)
			add(all[0], 0)
			add(16, run-4)
		default:
			run = 1
			add(all[0], 0)
		}
		all = all[run:]
	}
	b.lengths(h.lens[:], counts[:], 7)
	for h.stored = len(lensOrder); h.stored > 4 && h.lens[lensOrder[h.stored-1]] == 0; h.stored-- {
	}
}

// bits is the header's length.
func (h *blockHeader) bits() uint32 {
	n := uint32(14 + 3*h.stored)
	for _, s := range h.symbols {
		if n += uint32(h.lens[s]); s >= 16 {
			n += repeatBits[s-16]
		}
	}
	return n
}

func (h *blockHeader) write(w *bitWriter) {
	w.write(uint32(h.litLens-257)|uint32(h.dists-1)<<5|uint32(h.stored-4)<<10, 14)
	for _, s := range lensOrder[:h.stored] {
		w.write(uint32(h.lens[s]), 3)
	}
	var codes [19]code
	assign(codes[:], h.lens[:])
	for i, s := range h.symbols {
		if w.write(codes[s].bits, codes[s].n); s >= 16 {
			w.write(uint32(h.extra[i]), repeatBits[s-16])
		}
	}
}

// bitWriter appends bits, the lowest first.
type bitWriter struct {
	out  []byte
	held uint64
	n    uint32 // bits held, fewer than 32
}

// write appends the n lowest bits of v, at most 32. The others are zero.
func (w *bitWriter) write(v, n uint32) {
	w.held |= uint64(v) << w.n
	if w.n += n; w.n >= 32 {
		w.out = binary.LittleEndian.AppendUint32(w.out, uint32(w.held))
		w.held >>= 32
		w.n -= 32
	}
}

// finish returns all bytes, the last filled up with zeros.
func (w *bitWriter) finish() []byte {
	for ; w.n > 0; w.n -= min(w.n, 8) {
		w.out = append(w.out, byte(w.held))
		w.held >>= 8
	}
	return w.out
}
