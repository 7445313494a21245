package inflate

import "encoding/binary"

const (
	// fastIn is how many bytes of src one round of fast may look at: three refills, of which each
	// loads 8 and goes on by 7 at most.
	fastIn = 7 + 7 + 8
	// fastOut is how many bytes of dst one round may write: two literals, the longest match, and
	// what lies beyond it in the words, or the five words, that are copied at once.
	fastOut = 2 + 258 + 40
)

// fast decodes symbols while src and dst have room for whole rounds, and reports if it met the
// block's end.
//
// It is one loop with all its state in local variables. A round begins with at least 56 bits in buf
// and with the entry of the first of them. Only the low 6 bits of held count. Those above are
// garbage, for entries are subtracted whole.
func (d *decoder) fast(t *tables) (ended bool, err error) {
	dst, src := d.dst[:len(d.dst):len(d.dst)], d.src[:len(d.src):len(d.src)]
	buf, held, in, out := d.buf, d.held, d.in, d.out
	if len(src) < fastIn || len(dst) < fastOut {
		return false, nil // the compiler knows from here that what the loop compares with is positive
	}
	buf, held, in = refill(src, buf, held, in)
	e := t.litlen[buf&(1<<litlenBits-1)]
	for uint(in) < uint(len(src)-fastIn) && uint(out) < uint(len(dst)-fastOut) {
		saved := buf
		buf >>= e & 63
		held -= uint(e)
		if e&isLiteral != 0 {
			dst[out] = byte(e >> 16)
			out++
			e = t.litlen[buf&(1<<litlenBits-1)]
			saved = buf
			buf >>= e & 63
			held -= uint(e)
			if e&isLiteral != 0 {
				dst[out] = byte(e >> 16)
				out++
				e = t.litlen[buf&(1<<litlenBits-1)]
				saved = buf
				buf >>= e & 63
				held -= uint(e)
				if e&isLiteral != 0 {
					dst[out] = byte(e >> 16)
					out++
					buf, held, in = refill(src, buf, held, in)
					e = t.litlen[buf&(1<<litlenBits-1)]
					continue
				}
			}
		}
		if e&isSpecial != 0 {
			if e&isSubtable != 0 {
				e = t.litlen[e.inSubtable(buf)&litlenMask]
				saved = buf
				buf >>= e & 63
				held -= uint(e)
				if e&isLiteral != 0 {
					dst[out] = byte(e >> 16)
					out++
					buf, held, in = refill(src, buf, held, in)
					e = t.litlen[buf&(1<<litlenBits-1)]
					continue
				}
			}
			if e&isEnd != 0 {
				ended = true
				break
			}
			if e&isSpecial != 0 {
				err = ErrCorrupt
				break
			}
		}
		length := int(e.extra(saved))

		// Two literals and a length leave 14 bits or more. A distance takes 21, extra bits included,
		// if its code is in the primary table.
		if held&63 < distBits+13 {
			buf, held, in = refill(src, buf, held, in)
		}
		e = t.dist[buf&(1<<distBits-1)]
		if e&isSpecial != 0 {
			if e&isSubtable == 0 {
				err = ErrCorrupt
				break
			}
			buf >>= distBits
			held -= distBits
			buf, held, in = refill(src, buf, held, in)
			e = t.dist[e.inSubtable(buf)&distMask]
			if e&isSpecial != 0 {
				err = ErrCorrupt
				break
			}
		}
		back := int(e.extra(buf))
		buf >>= e & 63
		held -= uint(e)
		from := out - back
		if from < 0 {
			err = ErrCorrupt
			break
		}

		// The next entry is on its way while the match is copied.
		buf, held, in = refill(src, buf, held, in)
		e = t.litlen[buf&(1<<litlenBits-1)]
		end := out + length
		switch {
		case back >= 8: // words don't overlap
			to, of := dst[out:out+40:out+40], dst[from:from+40:from+40]
			store(to, 0, load(of, 0))
			store(to, 8, load(of, 8))
			store(to, 16, load(of, 16))
			if length > 24 {
				store(to, 24, load(of, 24))
				store(to, 32, load(of, 32))
				for i := 40; i < length; i += 16 {
					to, of := dst[out+i:out+i+16:out+i+16], dst[from+i:from+i+16:from+i+16]
					store(to, 0, load(of, 0))
					store(to, 8, load(of, 8))
				}
			}
		case back == 1:
			word := uint64(dst[from]) * 0x0101010101010101
			for ; out < end; out += 8 {
				store(dst, out, word)
			}
		default:
			// Of each word the bytes before the overlap are right; the next one writes over the rest.
			for ; out < end; out += back {
				store(dst, out, load(dst, out-back))
			}
		}
		out = end
	}
	d.buf, d.held, d.in, d.out = buf, held&63, in, out
	return ended, err
}

// refill adds bits until at least 56 are held.
func refill(src []byte, buf uint64, held uint, in int) (uint64, uint, int) {
	return buf | load(src, in)<<(held&63), held | 56, in + int(7-held>>3&7)
}

// load returns the 8 bytes at b[i]. With a capacity that is a constant, the compiler needs no mask
// to keep a pointer inside b.
func load(b []byte, i int) uint64 { return binary.LittleEndian.Uint64(b[i : i+8 : i+8]) }

// store writes the 8 bytes at b[i].
func store(b []byte, i int, v uint64) { binary.LittleEndian.PutUint64(b[i:i+8:i+8], v) }
