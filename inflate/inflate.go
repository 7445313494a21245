// Package inflate decodes deflate data whose input is whole in memory and whose output size is
// known: compressed clusters, grains and blocks.
//
// It is not for streams (package compress/flate and klauspost/compress are), and it checks no
// Adler-32: disk formats cut their streams before it.
package inflate

import (
	"bytes"
	"errors"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"
)

// The ways in which a stream can be wrong.
var (
	// ErrCorrupt: the bytes are no deflate data.
	ErrCorrupt = errors.New("deflate data is corrupt")
	// ErrShort: the input ended before dst was full and before the stream's end.
	ErrShort = errors.New("deflate data is cut short")
	// ErrTooLong: the stream holds more than dst takes.
	ErrTooLong = errors.New("deflate data is longer than its block")
)

// decoder is a flate reader with its input, kept together so that both are reused.
type decoder struct {
	in   bytes.Reader
	fr   io.ReadCloser
	past [1]byte
}

var decoders = sync.Pool{New: func() any {
	d := new(decoder)
	d.fr = flate.NewReader(&d.in)
	return d
}}

// Raw decodes the raw deflate stream (RFC 1951) at the start of src into dst and returns how many
// bytes it wrote. The stream may end early (n < len(dst), no error); what follows its end in src is
// ignored. A stream that is cut, as after a sync flush, is no error if dst is full. A stream that
// has more than len(dst) bytes is ErrTooLong.
func Raw(dst, src []byte) (n int, err error) {
	d := decoders.Get().(*decoder)
	defer decoders.Put(d)
	d.in.Reset(src)
	if err := d.fr.(flate.Resetter).Reset(&d.in, nil); err != nil {
		return 0, ErrCorrupt
	}
	for n < len(dst) {
		m, err := d.fr.Read(dst[n:])
		n += m
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, class(err)
		}
	}
	// dst is full. Anything but the stream's end or its cut is one byte too many.
	switch m, err := d.fr.Read(d.past[:]); {
	case m > 0:
		return n, ErrTooLong
	case err == nil || err == io.EOF || err == io.ErrUnexpectedEOF:
		return n, nil
	default:
		return n, class(err)
	}
}

// Zlib decodes the zlib stream (RFC 1950) at the start of src as Raw does. It checks the two bytes
// of header, refuses a preset dictionary, and does not look at the Adler-32.
func Zlib(dst, src []byte) (n int, err error) {
	if len(src) < 2 {
		return 0, ErrShort
	}
	// RFC 1950, 2.2: method 8, window up to 32 KiB, header a multiple of 31, no dictionary.
	if src[0]&0x0f != 8 || src[0]>>4 > 7 || (uint(src[0])<<8|uint(src[1]))%31 != 0 || src[1]&0x20 != 0 {
		return 0, ErrCorrupt
	}
	return Raw(dst, src[2:])
}

func class(err error) error {
	if err == io.ErrUnexpectedEOF {
		return ErrShort
	}
	return ErrCorrupt
}
