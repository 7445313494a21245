package inflate

import (
	"encoding/binary"
	"sync"
)

// decoder is the state of one call. It is big because of its tables, some 20 KiB, and reused.
type decoder struct {
	// The bits of the stream that come next, in buf from the lowest on: held of them count. Those
	// above are zero, or what is at src[in:] anyway, so that more can be added with or.
	buf  uint64
	held uint

	src []byte
	in  int // src[in:] is yet to be put into buf
	dst []byte
	out int // dst[out:] is yet to be written

	tables  tables
	pre     preTable
	lengths [maxLitlen + maxDist]uint8
}

var decoders = sync.Pool{New: func() any { return new(decoder) }}

// fixed is the tables of blocks with fixed codes (RFC 1951, 3.2.6).
var fixed = sync.OnceValue(func() *tables {
	t := new(tables)
	var lengths [litlenCodes]uint8
	for i := range lengths {
		switch {
		case i < 144:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		case i < 280:
			lengths[i] = 7
		default:
			lengths[i] = 8
		}
	}
	build(t.litlen[:], litlenBits, lengths[:], litlenSymbols[:])
	for i := range distCodes {
		lengths[i] = 5
	}
	build(t.dist[:], distBits, lengths[:distCodes], distSymbols[:])
	return t
})

// decode decodes the stream at the start of src and returns how many bytes it wrote to dst and, if
// err is nil, how many of src it took. A stream without an end is ErrShort, even if dst is full.
func decode(dst, src []byte) (n, used int, err error) {
	d := decoders.Get().(*decoder)
	d.buf, d.held, d.src, d.in, d.dst, d.out = 0, 0, src, 0, dst, 0
	for final := false; !final && err == nil; {
		final, err = d.block()
	}
	d.align()
	n, used = d.out, d.in
	d.src, d.dst = nil, nil
	decoders.Put(d)
	return n, used, err
}

// block decodes the next block (RFC 1951, 3.2.3).
func (d *decoder) block() (final bool, err error) {
	d.fill()
	head, ok := d.take(3)
	if !ok {
		return false, ErrShort
	}
	switch final = head&1 != 0; head >> 1 {
	case 0:
		err = d.stored()
	case 1:
		err = d.codes(fixed())
	case 2:
		if err = d.readTables(); err == nil {
			err = d.codes(&d.tables)
		}
	default:
		err = ErrCorrupt
	}
	return final, err
}

// fill adds bits until at least 56 are held, or all that are left of src.
func (d *decoder) fill() {
	if len(d.src)-d.in >= 8 {
		d.buf |= binary.LittleEndian.Uint64(d.src[d.in:]) << (d.held & 63)
		d.in += int((63 - d.held) >> 3)
		d.held |= 56
		return
	}
	for ; d.held < 56 && d.in < len(d.src); d.in++ {
		d.buf |= uint64(d.src[d.in]) << (d.held & 63)
		d.held += 8
	}
}

// take takes n bits off the stream. If as many are not held, it is at its end.
func (d *decoder) take(n uint) (v uint, ok bool) {
	if n > d.held {
		return 0, false
	}
	v = uint(d.buf & (1<<n - 1))
	d.buf >>= n
	d.held -= n
	return v, true
}

// align drops the bits up to the next byte, and gives back to src the whole bytes held.
func (d *decoder) align() {
	d.in -= int(d.held / 8)
	d.buf, d.held = 0, 0
}

// stored copies a block that isn't compressed (RFC 1951, 3.2.4).
func (d *decoder) stored() error {
	d.align()
	if len(d.src)-d.in < 4 {
		return ErrShort
	}
	head := binary.LittleEndian.Uint32(d.src[d.in:])
	if head>>16 != ^head&0xffff {
		return ErrCorrupt
	}
	d.in += 4
	size := int(head & 0xffff)
	n := copy(d.dst[d.out:], d.src[d.in:][:min(size, len(d.src)-d.in)])
	d.in += n
	d.out += n
	switch {
	case n == size:
		return nil
	case d.in < len(d.src):
		return ErrTooLong
	}
	return ErrShort
}

// preOrder is the order in which the lengths of the code length codes come (RFC 1951, 3.2.7).
var preOrder = [preCodes]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// readTables reads the codes of a block and makes its tables (RFC 1951, 3.2.7).
func (d *decoder) readTables() error {
	d.fill()
	head, ok := d.take(14)
	if !ok {
		return ErrShort
	}
	litlens, dists, pres := int(head&31)+257, int(head>>5&31)+1, int(head>>10)+4
	if litlens > maxLitlen || dists > maxDist {
		return ErrCorrupt
	}
	var preLengths [preCodes]uint8
	for _, i := range preOrder[:pres] {
		d.fill()
		n, ok := d.take(3)
		if !ok {
			return ErrShort
		}
		preLengths[i] = uint8(n)
	}
	if !build(d.pre[:], preBits, preLengths[:], preSymbols[:]) {
		return ErrCorrupt
	}
	lengths := d.lengths[:litlens+dists]
	for i := 0; i < len(lengths); {
		d.fill()
		e := d.pre[d.buf&(1<<preBits-1)]
		if _, ok := d.take(uint(e & 63)); !ok {
			return ErrShort
		}
		if e&isSpecial != 0 {
			return ErrCorrupt
		}
		symbol := uint8(e >> 16)
		if symbol < 16 {
			lengths[i] = symbol
			i++
			continue
		}
		repeated, least, more := uint8(0), 3, uint(3)
		switch {
		case symbol == 16 && i == 0:
			return ErrCorrupt
		case symbol == 16:
			repeated, more = lengths[i-1], 2
		case symbol == 18:
			least, more = 11, 7
		}
		n, ok := d.take(more)
		if !ok {
			return ErrShort
		}
		end := i + least + int(n)
		if end > len(lengths) {
			return ErrCorrupt
		}
		for ; i < end; i++ {
			lengths[i] = repeated
		}
	}
	if !build(d.tables.litlen[:], litlenBits, lengths[:litlens], litlenSymbols[:]) ||
		!build(d.tables.dist[:], distBits, lengths[litlens:], distSymbols[:]) {
		return ErrCorrupt
	}
	return nil
}

// codes decodes the codes of a block up to its end.
func (d *decoder) codes(t *tables) error {
	for {
		if d.out < len(d.dst)-fastOut && d.in < len(d.src)-fastIn {
			if ended, err := d.fast(t); ended || err != nil {
				return err
			}
		}
		if ended, err := d.careful(t); ended || err != nil {
			return err
		}
	}
}

// careful decodes one symbol, a literal or a match, and reports if it was the block's end. It does
// what fast can't: it goes to the very ends of src and dst.
func (d *decoder) careful(t *tables) (ended bool, err error) {
	d.fill() // at least 56 bits, unless src ends: a symbol takes 48 at most
	e := t.litlen[d.buf&(1<<litlenBits-1)]
	if e&isSubtable != 0 {
		if _, ok := d.take(litlenBits); !ok {
			return false, ErrShort
		}
		e = t.litlen[e.inSubtable(d.buf)&litlenMask]
	}
	length := e.extra(d.buf)
	if _, ok := d.take(uint(e & 63)); !ok {
		return false, ErrShort
	}
	switch {
	case e&isLiteral != 0:
		if d.out == len(d.dst) {
			return false, ErrTooLong
		}
		d.dst[d.out] = byte(e >> 16)
		d.out++
		return false, nil
	case e&isEnd != 0:
		return true, nil
	case e&isSpecial != 0:
		return false, ErrCorrupt
	}

	e = t.dist[d.buf&(1<<distBits-1)]
	if e&isSubtable != 0 {
		if _, ok := d.take(distBits); !ok {
			return false, ErrShort
		}
		e = t.dist[e.inSubtable(d.buf)&distMask]
	}
	back := e.extra(d.buf)
	if _, ok := d.take(uint(e & 63)); !ok {
		return false, ErrShort
	}
	if e&isSpecial != 0 || back > uint(d.out) {
		return false, ErrCorrupt
	}
	to := d.dst[d.out:]
	if uint(len(to)) < length {
		err = ErrTooLong
	} else {
		to = to[:length]
	}
	for from := d.dst[d.out-int(back):]; len(to) > 0; {
		// What is copied becomes more to copy from, where the match overlaps itself.
		n := copy(to, from[:min(back, uint(len(to)))])
		to = to[n:]
		d.out += n
		back += uint(n)
	}
	return false, err
}
