package source

import (
	"bufio"
	"fmt"
	"io"
)

// xzGuard hands the bytes of an .xz file on, and stops before a block whose dictionary is too large:
// the decoder makes what the header of a block asks for, up to 4 GiB. It also adds up how much is in
// the file, which the headers of its chunks say. It checks no more than it takes to find them; the
// rest is for the decoder. The names are those of "The .xz File Format" 1.2.0.
type xzGuard struct {
	r *bufio.Reader
	// ready are bytes to hand on, and then there are left bytes of r.
	ready []byte
	left  int64
	// step reads what comes next.
	step func() error

	check   int64  // size of the check behind a block
	block   int64  // bytes of the block so far
	records uint64 // of the index that are still to come
	index   int64  // bytes of the index so far

	unpacked int64 // bytes in the file so far
}

const (
	xzHeader   = 12 // bytes of a stream's header, and of its footer
	xzFilter   = 0x21
	maxXZVLI   = 9  // bytes of the longest multibyte integer (1.2)
	maxXZDictP = 40 // the largest property of LZMA2 (5.3.1): a dictionary of 4 GiB - 1
)

func newXZGuard(r *bufio.Reader) *xzGuard {
	g := &xzGuard{r: r}
	g.step = g.streamHeader
	return g
}

// Read hands on.
func (g *xzGuard) Read(p []byte) (int, error) {
	for len(g.ready) == 0 && g.left == 0 {
		g.ready = g.ready[:0]
		if err := g.step(); err != nil {
			return 0, err
		}
	}
	if len(g.ready) > 0 {
		n := copy(p, g.ready)
		g.ready = g.ready[n:]
		return n, nil
	}
	n, err := g.r.Read(p[:min(int64(len(p)), g.left)])
	g.left -= int64(n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// take reads n bytes more into ready and returns them.
func (g *xzGuard) take(n int) ([]byte, error) {
	from := len(g.ready)
	g.ready = append(g.ready, make([]byte, n)...)
	if _, err := io.ReadFull(g.r, g.ready[from:]); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return g.ready[from:], nil
}

// vli reads a multibyte integer (1.2).
func (g *xzGuard) vli() (v uint64, length int, err error) {
	for length < maxXZVLI {
		b, err := g.take(1)
		if err != nil {
			return 0, 0, err
		}
		v |= uint64(b[0]&0x7f) << (7 * length)
		length++
		if b[0] < 0x80 {
			return v, length, nil
		}
	}
	return 0, 0, fmt.Errorf("an integer of more than %d bytes", maxXZVLI)
}

// streamHeader reads a stream's header or four bytes of the padding before it (2.1.1, 2.2). The file may
// end here.
func (g *xzGuard) streamHeader() error {
	if _, err := g.r.Peek(1); err == io.EOF {
		return io.EOF
	}
	b, err := g.take(4)
	if err != nil || string(b) == "\x00\x00\x00\x00" {
		return err
	}
	if b, err = g.take(xzHeader - 4); err != nil {
		return err
	}
	// The second of the stream flags (2.1.1.2).
	g.check = [...]int64{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}[b[3]&15]
	g.step = g.blockHeader
	return nil
}

// blockHeader reads a block's header (3.1), or finds the index.
func (g *xzGuard) blockHeader() error {
	b, err := g.take(1)
	if err != nil {
		return err
	}
	if b[0] == 0 {
		records, n, err := g.vli()
		if err != nil {
			return err
		}
		g.records, g.index, g.step = records, 1+int64(n), g.indexRecord
		return nil
	}
	size := (int(b[0]) + 1) * 4
	if b, err = g.take(size - 1); err != nil {
		return err
	}
	if err := checkXZFilters(b); err != nil {
		return err
	}
	g.block, g.step = int64(size), g.chunk
	return nil
}

// checkXZFilters looks for the size of a dictionary in a block's header behind its first byte.
func checkXZFilters(b []byte) error {
	bad := fmt.Errorf("a block's header is cut short")
	next := func() (v uint64, ok bool) {
		for i := range min(len(b), maxXZVLI) {
			v |= uint64(b[i]&0x7f) << (7 * i)
			if b[i] < 0x80 {
				b = b[i+1:]
				return v, true
			}
		}
		return 0, false
	}
	flags := b[0]
	b = b[1:]
	for _, present := range []byte{0x40, 0x80} { // the sizes
		if flags&present != 0 {
			if _, ok := next(); !ok {
				return bad
			}
		}
	}
	for range flags&3 + 1 {
		id, ok := next()
		n, ok2 := next()
		if !ok || !ok2 || n > uint64(len(b)) {
			return bad
		}
		if id != xzFilter {
			return fmt.Errorf("filter %#x is not known, only LZMA2 is", id)
		}
		if n != 1 || b[0] > maxXZDictP {
			return bad
		}
		if size := xzDictionary(b[0]); size > maxDictionary {
			return fmt.Errorf("%w: %d bytes, the most is %d", ErrDictionary, size, int64(maxDictionary))
		}
		b = b[n:]
	}
	return nil
}

// xzDictionary is the size in bytes that a property of LZMA2 means (5.3.1).
func xzDictionary(p byte) int64 {
	if p == maxXZDictP {
		return 1<<32 - 1
	}
	return int64(2|p&1) << (p/2 + 11)
}

// chunk reads the header of a chunk of LZMA2, which only the reference implementation documents
// (lzma2_decoder.c of XZ Utils).
func (g *xzGuard) chunk() error {
	b, err := g.take(1)
	if err != nil {
		return err
	}
	switch control := b[0]; {
	case control == 0: // the block ends; it is padded to 4 bytes, and its check follows
		g.block++
		g.left = (4-g.block%4)%4 + g.check
		g.step = g.blockHeader
		return nil
	case control < 3:
		if b, err = g.take(2); err != nil {
			return err
		}
		g.left = int64(b[0])<<8 + int64(b[1]) + 1
		g.unpacked += g.left
		g.block += 3 + g.left
	case control < 0x80:
		return fmt.Errorf("a chunk of the unknown kind %#x", control)
	default:
		if b, err = g.take(4); err != nil {
			return err
		}
		g.unpacked += int64(control&0x1f)<<16 + int64(b[0])<<8 + int64(b[1]) + 1
		g.left = int64(b[2])<<8 + int64(b[3]) + 1
		if control >= 0xc0 {
			g.left++ // the properties
		}
		g.block += 5 + g.left
	}
	return nil
}

// indexRecord reads a record of the index (4.3), or what is behind them: padding, a CRC and the footer.
func (g *xzGuard) indexRecord() error {
	if g.records == 0 {
		g.left = (4-g.index%4)%4 + 4 + xzHeader
		g.step = g.streamHeader
		return nil
	}
	g.records--
	for range 2 {
		_, n, err := g.vli()
		if err != nil {
			return err
		}
		g.index += int64(n)
	}
	return nil
}
