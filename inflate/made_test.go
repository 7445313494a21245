package inflate_test

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"slices"
)

// maker makes deflate streams (RFC 1951) that no compressor would: random blocks with random codes
// of all lengths, matches of all lengths and distances. It keeps what they decode to.
type maker struct {
	*rand.Rand
	src  []byte
	free uint // bits of the last byte of src
	out  []byte
}

// makeStream makes a stream of some blocks, and what it decodes to.
func makeStream(seed uint64) (src, out []byte) {
	m := &maker{Rand: rand.New(rand.NewPCG(seed, 7))}
	for n := m.IntN(4); n >= 0; n-- {
		kind := uint(m.IntN(3))
		last := uint(0)
		if n == 0 {
			last = 1
		}
		m.put(last|kind<<1, 3)
		switch kind {
		case 0:
			m.stored()
		case 1:
			litlen := slices.Concat(slices.Repeat([]byte{8}, 144), slices.Repeat([]byte{9}, 112),
				slices.Repeat([]byte{7}, 24), slices.Repeat([]byte{8}, 8))
			m.symbols(codesOf(litlen)[:286], codesOf(slices.Repeat([]byte{5}, 32))[:30])
		case 2:
			m.dynamic()
		}
	}
	return m.src, m.out
}

// put appends the low n bits of v.
func (m *maker) put(v, n uint) {
	for ; n > 0; n-- {
		if m.free == 0 {
			m.src, m.free = append(m.src, 0), 8
		}
		m.src[len(m.src)-1] |= byte(v&1) << (8 - m.free)
		v >>= 1
		m.free--
	}
}

func (m *maker) stored() {
	m.free = 0
	n := m.IntN(300)
	m.src = binary.LittleEndian.AppendUint16(m.src, uint16(n))
	m.src = binary.LittleEndian.AppendUint16(m.src, ^uint16(n))
	for range n {
		m.out = append(m.out, byte(m.Uint32()))
	}
	m.src = append(m.src, m.out[len(m.out)-n:]...)
}

// A code of n bits, the first of them the lowest; none if n is 0.
type code struct{ bits, n uint }

// codesOf makes the codes with these lengths (3.2.2).
func codesOf(lengths []byte) []code {
	codes := make([]code, len(lengths))
	next := uint(0)
	for n := uint(1); n <= 15; n++ {
		for i, l := range lengths {
			if uint(l) == n {
				codes[i] = code{uint(bits.Reverse16(uint16(next << (16 - n)))), n}
				next++
			}
		}
		next <<= 1
	}
	return codes
}

// lengths makes a complete code of n of the symbols, with no code longer than longest; must is one
// of them.
func (m *maker) lengths(symbols, n, longest, must int) []byte {
	leaves := []byte{1, 1}
	deep := m.IntN(2) == 0
	for len(leaves) < n {
		i := m.IntN(len(leaves))
		if deep { // long codes are rare otherwise
			i = max(i, len(leaves)-1-m.IntN(2))
		}
		if int(leaves[i]) < longest {
			leaves[i]++
			leaves = append(leaves, leaves[i])
		} else {
			deep = false
		}
	}
	lengths := make([]byte, symbols)
	order := m.Perm(symbols)
	at := slices.Index(order, must)
	order[at], order[0] = order[0], order[at]
	m.Shuffle(len(leaves), func(i, j int) { leaves[i], leaves[j] = leaves[j], leaves[i] })
	for i, l := range leaves {
		lengths[order[i]] = l
	}
	return lengths
}

func (m *maker) dynamic() {
	litlen := m.lengths(257+m.IntN(30), 2+m.IntN(255), 15, 256)
	var dist []byte
	switch n := 1 + m.IntN(30); m.IntN(6) {
	case 0:
		dist = make([]byte, n) // none
	case 1:
		dist = make([]byte, n) // one
		dist[m.IntN(n)] = 1
	default:
		n = max(n, 2)
		dist = m.lengths(n, 2+m.IntN(n-1), 15, 0)
	}
	pre := m.lengths(19, 19, 7, 0)
	m.put(uint(len(litlen)-257), 5)
	m.put(uint(len(dist)-1), 5)
	m.put(19-4, 4)
	for _, i := range []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15} {
		m.put(uint(pre[i]), 3)
	}
	codes := codesOf(pre)
	all := slices.Concat(litlen, dist)
	for i := 0; i < len(all); {
		run := 1
		for i+run < len(all) && all[i+run] == all[i] {
			run++
		}
		symbol, more, least, most := int(all[i]), uint(0), 1, 1
		switch {
		case m.IntN(8) == 0:
		case all[i] == 0 && run >= 11:
			symbol, more, least, most = 18, 7, 11, 138
		case all[i] == 0 && run >= 3:
			symbol, more, least, most = 17, 3, 3, 10
		case i > 0 && all[i] == all[i-1] && run >= 3:
			symbol, more, least, most = 16, 2, 3, 6
		}
		n := min(run, most)
		m.put(codes[symbol].bits, codes[symbol].n)
		m.put(uint(n-least), more)
		i += n
	}
	m.symbols(codesOf(litlen), codesOf(dist))
}

// The extra bits of lengths and distances (3.2.5), from whose sums their bases follow.
var (
	lengthExtra = []uint{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5}
	distExtra   = []uint{0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13}
)

// pick returns a value that codes[from:] can express and that isn't above limit, with its code and
// extra bits, or no code.
func (m *maker) pick(codes []code, from int, extra []uint, base, limit int) (value int, c code, more, n uint) {
	bases := make([]int, 0, len(extra)+1)
	for _, n := range extra {
		bases = append(bases, base)
		base += 1 << n
	}
	i := m.IntN(len(codes) - from + 1)
	for range 4 { // some tries
		if i = (i + 7) % (len(codes) - from + 1); i == len(codes)-from || codes[from+i].n == 0 {
			continue
		}
		if from == 257 && i == 28 { // 258 has a code of its own
			return 258, codes[from+i], 0, 0
		}
		if more := uint(m.IntN(1 << extra[i])); bases[i]+int(more) <= limit {
			return bases[i] + int(more), codes[from+i], more, extra[i]
		}
	}
	return 0, code{}, 0, 0
}

func (m *maker) symbols(litlen, dist []code) {
	for range m.IntN(400) {
		if m.IntN(3) == 0 && len(litlen) > 257 {
			length, c, more, n := m.pick(litlen, 257, lengthExtra, 3, 258)
			back, dc, dmore, dn := m.pick(dist, 0, distExtra, 1, len(m.out))
			if c.n > 0 && dc.n > 0 {
				m.put(c.bits, c.n)
				m.put(more, n)
				m.put(dc.bits, dc.n)
				m.put(dmore, dn)
				for range length {
					m.out = append(m.out, m.out[len(m.out)-back])
				}
			}
		}
		if i := m.IntN(256); litlen[i].n > 0 {
			m.put(litlen[i].bits, litlen[i].n)
			m.out = append(m.out, byte(i))
		}
	}
	m.put(litlen[256].bits, litlen[256].n)
}
