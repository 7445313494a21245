package zvhd

import (
	"bytes"
	"errors"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"

	"imgferry/formats/hwstream"
)

// The payloads of all chunks together are one zlib stream that is flushed to a byte's border (a sync
// flush) after each block and never finished. So all that decoding a chunk needs of those before it
// are the last windowSize bytes that they decode to.

const (
	// windowSize is how far deflate looks back, in bytes (RFC 1951, 2).
	windowSize = 32 << 10
	// zlibHeadSize is the length of the head of the stream, in the first chunk (RFC 1950, 2.2).
	zlibHeadSize = 2
)

var (
	errHead   = errors.New("its zlib stream has no valid head")
	errFlush  = errors.New("its zlib stream isn't flushed at the block's end")
	errLength = errors.New("it doesn't decode to exactly 2 MiB")
)

// checkZlibHead checks the head of the stream.
func checkZlibHead(p []byte) error {
	const deflate, largestWindow, dictionary = 8, 7, 0x20
	if len(p) < zlibHeadSize || p[0]&0xf != deflate || p[0]>>4 > largestWindow || p[1]&dictionary != 0 || (int(p[0])<<8|int(p[1]))%31 != 0 {
		return errHead
	}
	return nil
}

// inflaters holds io.ReadClosers of package flate.
var inflaters sync.Pool

// inflate decodes a block's payload, without the stream's head, into dst, which must become full,
// exactly. window is what came before.
func inflate(dst, payload, window []byte) error {
	if !hwstream.Flushed(payload) {
		return errFlush
	}
	src := bytes.NewReader(payload)
	r, ok := inflaters.Get().(io.ReadCloser)
	if !ok {
		r = flate.NewReaderDict(src, window)
	} else if err := r.(flate.Resetter).Reset(src, window); err != nil {
		return err
	}
	defer inflaters.Put(r)
	if _, err := io.ReadFull(r, dst); err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			err = errLength
		}
		return err
	}
	// What is left is the flush: it decodes to nothing, and ends the payload but not the stream.
	var more [1]byte
	n, err := io.ReadFull(r, more[:])
	switch {
	case n > 0:
		return errLength
	case err == io.ErrUnexpectedEOF && src.Len() == 0:
		return nil
	}
	return errFlush
}
