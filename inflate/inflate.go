// Package inflate decodes deflate data whose input is whole in memory and whose output size is
// known: compressed clusters, grains and blocks. It allocates nothing and is two to three times as
// fast as decoders of streams.
//
// It is not for streams (compress/flate and klauspost/compress are): one call decodes one whole
// stream.
//
// No function writes to dst beyond its length or reads src beyond its. What dst holds beyond the
// count returned is unspecified.
package inflate

import (
	"encoding/binary"
	"errors"
)

// The ways in which a stream can be wrong.
var (
	// ErrCorrupt: the bytes are no deflate data, or their zlib header is no good.
	ErrCorrupt = errors.New("deflate data is corrupt")
	// ErrShort: the input ended before the stream's end.
	ErrShort = errors.New("deflate data is cut short")
	// ErrTooLong: the stream holds more than dst takes.
	ErrTooLong = errors.New("deflate data is longer than its block")
	// ErrChecksum: what was decoded doesn't have the zlib stream's Adler-32.
	ErrChecksum = errors.New("deflate data doesn't match its checksum")
)

// Raw decodes the raw deflate stream (RFC 1951) at the start of src into dst and returns how many
// bytes it wrote, which are good even if err is not nil. The stream may fill dst in part only
// (n < len(dst), no error); what follows its end in src is ignored. A stream that is cut, as after a
// sync flush, is no error if dst is full, and ErrShort if not. A stream that has more than len(dst)
// bytes is ErrTooLong; anything else is ErrCorrupt.
func Raw(dst, src []byte) (n int, err error) {
	n, _, err = decode(dst, src)
	if err == ErrShort && n == len(dst) {
		err = nil
	}
	return n, err
}

// Zlib decodes the zlib stream (RFC 1950) at the start of src as Raw does, but wants its end and
// its Adler-32: a cut stream is ErrShort, another sum is ErrChecksum. A preset dictionary is
// ErrCorrupt.
func Zlib(dst, src []byte) (n int, err error) {
	if err := zlibHead(src); err != nil {
		return 0, err
	}
	n, used, err := decode(dst, src[zlibHeadSize:])
	if err != nil {
		return n, err
	}
	tail := src[zlibHeadSize+used:]
	if len(tail) < adlerSize {
		return n, ErrShort
	}
	if binary.BigEndian.Uint32(tail) != adler(dst[:n]) {
		return n, ErrChecksum
	}
	return n, nil
}

// ZlibFlushed decodes the zlib stream at the start of src as Raw does: for writers that flush
// their stream (Z_SYNC_FLUSH) and leave it without an end. An Adler-32, should there be one, is
// not looked at.
func ZlibFlushed(dst, src []byte) (n int, err error) {
	if err := zlibHead(src); err != nil {
		return 0, err
	}
	return Raw(dst, src[zlibHeadSize:])
}

// The sizes in bytes of what is around the deflate stream of a zlib stream (RFC 1950, 2.2).
const (
	zlibHeadSize = 2
	adlerSize    = 4
)

// zlibHead checks the header (RFC 1950, 2.2): method 8, window up to 32 KiB, a multiple of 31, no
// dictionary.
func zlibHead(src []byte) error {
	if len(src) < zlibHeadSize {
		return ErrShort
	}
	if src[0]&0x0f != 8 || src[0]>>4 > 7 || binary.BigEndian.Uint16(src)%31 != 0 || src[1]&0x20 != 0 {
		return ErrCorrupt
	}
	return nil
}
