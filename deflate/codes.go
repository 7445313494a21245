package deflate

import (
	"math/bits"
	"slices"
)

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

// builder finds the lengths of codes. It is a place for what that takes.
type builder struct {
	keys [litLenCodes]uint64
	work [litLenCodes]uint32
}

// lengths sets the lengths of the shortest code for symbols that occur so often, but none above most.
// A decoder must be given at least one code, and does with a single one.
func (b *builder) lengths(lens []uint8, counts []uint32, most int) {
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

// header describes the codes of a dynamic block (3.2.7).
type header struct {
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

func (h *header) make(b *builder, litLens *[litLenCodes]uint8, dists *[distCodes]uint8) {
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
func (h *header) bits() int {
	n := 14 + 3*h.stored
	for _, s := range h.symbols {
		if n += int(h.lens[s]); s >= 16 {
			n += int(repeatBits[s-16])
		}
	}
	return n
}

func (h *header) write(w *bitWriter) {
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
